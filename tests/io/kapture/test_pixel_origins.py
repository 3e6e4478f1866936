"""The pixel origin of datasets: what is known, and what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.pixel_origins import (
    ORIGIN_NAME,
    find_camera_origin,
    origins_text,
    place_keypoints,
    read_origin,
    write_origin,
)
from tests.scenes.kapture_files import write_rows

CORNER, CENTER = (320.0, 240.0), (319.5, 239.5)
REFINED = (318.2, 243.7)
ROWS = np.arange(24, dtype=np.float32).reshape(-1, 6) + 1


def write_dataset(
    root: Path, *principal_points: tuple[float, float], names: str = "camera{}"
) -> Path:
    """A camera and an image for each principal point; none: an unknown camera."""
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    cameras: list[Any] = [
        kapture.Camera("PINHOLE", [640, 480, 500, 600, x, y])
        for x, y in principal_points
    ]
    cameras = cameras or [kapture.Camera("UNKNOWN_CAMERA", [640, 480])]
    for i, camera in enumerate(cameras):
        sensors[names.format(i)] = camera
        records[i, names.format(i)] = f"{i}.jpg"
    data = kapture.Kapture(sensors=sensors, records_camera=records)
    kcsv.kapture_to_dir(str(root), data)
    return root


def write_keypoints(root: Path, columns: int) -> Path:
    rows = ROWS[:, :columns]
    folder = root / "reconstruction" / "keypoints" / "sift"
    fields = f"sift, float32, {columns}"
    return write_rows(
        folder, "keypoints", {"0.jpg": np.ascontiguousarray(rows)}, fields=fields
    )


@pytest.mark.parametrize(
    "points, names, origin, basis, said",
    [
        ([CORNER], "camera{}", "corner", "principal points", None),
        ([CENTER], "camera{}", "center", "principal points", None),
        ([REFINED, CORNER], "camera{}", "corner", "principal points", None),
        ([CENTER], "cam_0000{}", "center", "principal points", None),
        ([REFINED], "cam_0000{}", "corner", "names", "kapture_import_colmap names"),
        ([REFINED], "camera{}", "center", "nothing", "kapture's convention"),
        ([CENTER, CORNER], "camera{}", "corner", "principal points", "some suggest"),
        ([], "camera{}", "center", "nothing", None),
        ([], "cam_0000{}", "corner", "names", None),
    ],
)
def test_origin_of_cameras(
    tmp_path: Path, points: Any, names: str, origin: str, basis: str, said: str | None
) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "k", *points, names=names))
    found = find_camera_origin(dataset, "auto")
    assert (found.origin, found.basis) == (origin, basis)
    if said is None:
        assert found.warnings == ()
        return
    (text,) = found.warnings
    other = {"center": "corner", "corner": "center"}[origin]
    assert said in text and f"the {origin} of the first pixel" in text
    # atan(0.5 / 550): the mean of both focal lengths
    assert text.endswith(
        f"--camera-origin {other}: half a pixel rotates each ray by " "0.052 degrees"
    )


def test_what_is_given_or_written_is_not_guessed(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path, REFINED))
    for written in ("corner", "center"):
        write_origin(tmp_path / "sensors", written)  # type: ignore[arg-type]
        found = find_camera_origin(dataset, "auto")
        assert (found.origin, found.basis, found.warnings) == (written, "file", ())
    found = find_camera_origin(dataset, "corner")
    assert (found.origin, found.basis, found.warnings) == ("corner", "flag", ())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pixel_origin": "middle"}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / ORIGIN_NAME).write_text(text)
    with pytest.raises(DatasetError, match=f"{ORIGIN_NAME}: expected"):
        read_origin(tmp_path)


@pytest.mark.parametrize(
    "points, names, columns, origin, said",
    [
        ([CORNER], "cam_0000{}", 2, "corner", True),
        ([CORNER], "cam_0000{}", 4, "corner", True),
        ([CORNER], "cam_0000{}", 6, "corner", True),
        ([CORNER], "cam_0000{}", 3, "center", False),
        ([CENTER], "camera{}", 2, "center", True),
        ([CENTER], "camera{}", 3, "center", False),
        ([CENTER], "camera{}", 6, "corner", True),
        ([REFINED], "camera{}", 6, "center", True),
        ([REFINED], "cam_0000{}", 6, "corner", True),
        ([], "camera{}", 6, "corner", True),
        ([], "camera{}", 2, "center", True),
    ],
)
def test_origin_of_third_party_keypoints(
    tmp_path: Path, points: Any, names: str, columns: int, origin: str, said: bool
) -> None:
    write_dataset(tmp_path, *points, names=names)
    write_keypoints(tmp_path, columns)
    dataset = open_dataset(tmp_path)
    cameras = find_camera_origin(dataset, "auto")
    table = open_feature_table([tmp_path], "keypoints")
    placed, warnings = place_keypoints(table, "auto", dataset, cameras)
    assert origins_text(placed) == origin
    assert len(warnings) == said
    if said:
        assert f"the {origin} of the first pixel" in warnings[0]
        assert "--keypoint-origin" in warnings[0]
    stored, expected = ROWS[:, :columns], ROWS[:, :columns].copy()
    expected[:, :2] -= 0.5 * (origin == "corner")
    np.testing.assert_array_equal(placed.read("0.jpg"), expected)
    np.testing.assert_array_equal(placed.read_stored("0.jpg"), stored)


def placed(root: Path, given: Any = "auto") -> tuple[str, tuple[str, ...]]:
    """From where the keypoints of a dataset count, and what is said of it."""
    dataset = open_dataset(root)
    cameras = find_camera_origin(dataset, "auto")
    table = open_feature_table([root], "keypoints")
    found, warnings = place_keypoints(table, given, dataset, cameras)
    return origins_text(found), warnings


def test_the_user_or_a_file_says_where_keypoints_count_from(tmp_path: Path) -> None:
    write_dataset(tmp_path, CORNER)
    folder = write_keypoints(tmp_path, 6)
    for given in ("center", "corner"):
        assert placed(tmp_path, given) == (given, ())
    write_keypoints(tmp_path, 2)
    for name in ("manifest.json", ORIGIN_NAME):
        (folder / name).write_text('{"pixel_origin": "center"}')
        assert placed(tmp_path) == ("center", ())
        (folder / name).unlink()


def test_columns_that_are_not_read_are_reported(tmp_path: Path) -> None:
    write_dataset(tmp_path, CENTER)
    write_keypoints(tmp_path, 5)
    _, warnings = placed(tmp_path, "center")
    assert warnings[0].startswith("keypoints 'sift' have 5 columns")
