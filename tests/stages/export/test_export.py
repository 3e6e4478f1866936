"""Export of third-party features: what they are stays what it is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.config.origins import OriginConfig
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.stages import export
from tests.scenes.kapture_files import write_rows

COUNT = 12


@pytest.fixture
def shapes() -> np.ndarray[Any, np.dtype[np.float32]]:
    """(N, 6) keypoints of SIFT in COLMAP: x, y and the affine shape."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-3, 3, COUNT)
    scale = np.linspace(1, 4, COUNT)
    a11, a21 = scale * np.cos(angle), scale * np.sin(angle)
    xy = rng.uniform(5, 40, (2, COUNT))
    return np.column_stack([*xy, a11, -a21, a21, a11]).astype(np.float32)


@pytest.fixture
def sift() -> np.ndarray[Any, np.dtype[np.uint8]]:
    rows = np.abs(np.random.default_rng(1).normal(size=(COUNT, 128)))
    rows *= 512 / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.clip(0, 255).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path, shapes: Any, sift: Any) -> Path:
    """A dataset as kapture_import_colmap makes it."""
    return write_dataset(tmp_path / "k", shapes, sift)


def write_dataset(root: Path, keypoints: Any, descriptors: Any) -> Path:
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    sensors["cam_00001"] = kapture.Camera("PINHOLE", [64, 48, 50, 50, 31, 25])
    records[1, "cam_00001"] = "a.png"
    kcsv.kapture_to_dir(
        str(root), kapture.Kapture(sensors=sensors, records_camera=records)
    )
    images = root / "sensors" / "records_data"
    images.mkdir()
    Image.new("L", (64, 48)).save(images / "a.png")
    for kind, rows, more in (
        ("keypoints", keypoints, ""),
        ("descriptors", descriptors, ", SIFT, L2"),
    ):
        write_rows(
            root / "reconstruction" / kind / "SIFT",
            kind,
            {"a.png": rows},
            fields=f"SIFT, {rows.dtype}, {rows.shape[1]}{more}",
        )
    return root


def text_rows(root: Path, output: Path, **changes: Any) -> Any:
    export.run(kapture_root=root, to="colmap-text", output=output, **changes)
    lines = (output / "a.png.txt").read_text().splitlines()
    assert lines[0] == f"{COUNT} 128"
    return np.array([line.split() for line in lines[1:]], float)


def test_text_has_the_bytes_and_shapes_of_colmap(
    root: Path, tmp_path: Path, shapes: Any, sift: Any
) -> None:
    rows = text_rows(root, tmp_path / "text")
    np.testing.assert_array_equal(rows[:, 4:], sift)
    np.testing.assert_allclose(rows[:, :2], shapes[:, :2], atol=1e-4)
    np.testing.assert_allclose(rows[:, 2], np.linspace(1, 4, COUNT), atol=1e-4)
    angles = np.arctan2(shapes[:, 4], shapes[:, 2])
    np.testing.assert_allclose(rows[:, 3], angles, rtol=1e-5)
    moved = text_rows(
        root, tmp_path / "moved", config=OriginConfig(keypoint_origin="center")
    )
    np.testing.assert_allclose(moved[:, :2], shapes[:, :2] + 0.5, atol=1e-4)


def test_text_of_floats_is_that_of_unit_vectors(
    tmp_path: Path, shapes: Any, sift: Any
) -> None:
    root = write_dataset(tmp_path / "k", shapes[:, :2].copy(), sift.astype(np.float32))
    unit = sift / np.linalg.norm(sift.astype(float), axis=1, keepdims=True)
    rows = text_rows(root, tmp_path / "text")
    np.testing.assert_allclose(rows[:, 4:], 127.5 * (unit + 1), atol=0.51)
    np.testing.assert_allclose(
        rows[:, 2:4], np.tile([32 / 12, 0], (COUNT, 1)), rtol=1e-4
    )


def test_h5_has_unit_descriptors_patch_sides_and_pixel_centres(
    root: Path, tmp_path: Path, shapes: Any, sift: Any
) -> None:
    report = export.run(kapture_root=root, to="h5", output=tmp_path / "a.h5")
    assert report.details["keypoint_origin"] == "corner"
    unit = sift / np.linalg.norm(sift.astype(float), axis=1, keepdims=True)
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["a.png"]
        np.testing.assert_allclose(group["descriptors"][()].T, unit, atol=1e-6)
        np.testing.assert_allclose(
            group["scales"], np.linspace(12, 48, COUNT), rtol=1e-5
        )
        np.testing.assert_array_equal(group["keypoints"], shapes[:, :2] - 0.5)


@pytest.mark.parametrize("columns, kept", [(2, 2), (3, 2), (4, 4), (5, 2), (6, 6)])
def test_a_database_keeps_the_columns_that_colmap_reads(
    tmp_path: Path, shapes: Any, sift: Any, columns: int, kept: int
) -> None:
    keypoints = np.abs(shapes[:, :columns])
    root = write_dataset(tmp_path / "k", keypoints, sift)
    report = export.run(
        kapture_root=root,
        to="colmap-db",
        output=tmp_path / "a.db",
        config=OriginConfig(camera_origin="corner", keypoint_origin="corner"),
    )
    assert [w.split()[0] for w in report.warnings] == ["keypoints"] * (columns == 5)
    with closing(pycolmap.Database.open(str(tmp_path / "a.db"))) as database:
        np.testing.assert_array_equal(database.read_keypoints(1), keypoints[:, :kept])
        assert database.read_all_cameras()[0].params.tolist() == [50, 50, 31, 25]


def test_what_came_from_colmap_stays_where_it_is_and_that_is_reported(
    root: Path, tmp_path: Path, shapes: Any
) -> None:
    report = export.run(kapture_root=root, to="colmap-db", output=tmp_path / "a.db")
    origins = [report.details[f"{name}_origin"] for name in ("camera", "keypoint")]
    assert origins == ["corner", "corner"]
    assert ["--camera-origin center" in text for text in report.warnings] == [
        True,
        False,
    ]
    assert "--keypoint-origin center" in report.warnings[1]
    with closing(pycolmap.Database.open(str(tmp_path / "a.db"))) as database:
        np.testing.assert_array_equal(database.read_keypoints(1), shapes)
        assert database.read_all_cameras()[0].params.tolist() == [50, 50, 31, 25]


@pytest.mark.parametrize("to", ["h5", "colmap-text"])
def test_binary_descriptors_are_refused_by_their_metric(
    root: Path, tmp_path: Path, to: Any
) -> None:
    described = root / "reconstruction/descriptors/SIFT/descriptors.txt"
    described.write_text(described.read_text().replace("L2", "Hamming"))
    with pytest.raises(FeatureFormatError, match="descriptors.txt: .* by 'Hamming'"):
        export.run(kapture_root=root, to=to, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["h5", "colmap-text", "colmap-db"])
def test_images_and_features_of_different_names_are_reported(
    root: Path, tmp_path: Path, to: Any
) -> None:
    records = root / "sensors" / "records_camera.txt"
    records.write_text(records.read_text() + "2, cam_00001, b.png\n")
    Image.new("L", (64, 48)).save(root / "sensors/records_data/b.png")
    for kind, suffix in (("keypoints", "kpt"), ("descriptors", "desc")):
        folder = root / "reconstruction" / kind / "SIFT"
        rows = (folder / f"a.png.{suffix}").read_bytes()
        (folder / f"c.png.{suffix}").write_bytes(rows)
    report = export.run(kapture_root=root, to=to, output=tmp_path / "out")
    assert (report.done, report.details["images_without_features"]) == (1, 1)
    reported = [text for text in report.warnings if text.startswith("1 images")]
    assert [text.partition(";")[0] for text in reported] == [
        "1 images have no features: 'b.png'",
        "1 images have features but are not in records_camera.txt: 'c.png'",
    ]


@pytest.mark.parametrize("to", ["h5", "colmap-text", "colmap-db"])
def test_features_of_a_picture_of_another_size_fail(
    root: Path, tmp_path: Path, shapes: Any, to: Any
) -> None:
    file = root / "reconstruction/keypoints/SIFT/a.png.kpt"
    shapes[:, :2] *= 3
    file.write_bytes(shapes.tobytes())
    report = export.run(kapture_root=root, to=to, output=tmp_path / "out")
    assert (report.done, [failure.name for failure in report.failed]) == (0, ["a.png"])
    assert "outside of its 64 x 48 pixels" in report.failed[0].reason
