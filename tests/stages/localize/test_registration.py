"""Queries whose keypoints are registered against the patches of the map."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest
from PIL import ExifTags, Image

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.sparse_map import check_keypoints_type
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.map_patches import PATCHES_NAME
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.stages.localize.results import read_localized
from r2d2_kapture.stages.map.patches import write_patches
from tests.scenes.contents import files_below
from tests.scenes.localization import QUIET, position_error
from tests.scenes.patched_map import QUERIES, PatchedRoom, truth, write_room

OFF = LocalizeConfig(refine="off")
VOLATILE = ("report.json", FINISHED_NAME, ".lock")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = write_room(tmp_path_factory.mktemp("room"))
    write_patches(room.map_path, room.images, workers=1)
    return room.root


@pytest.fixture
def room(made: Path, tmp_path: Path) -> PatchedRoom:
    """A copy, to change."""
    return PatchedRoom(Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True)))


def poses(room: PatchedRoom, output: str) -> dict[str, pycolmap.Rigid3d]:
    return read_camera_poses(open_dataset(room.root / output)).cam_from_world


def errors(room: PatchedRoom, output: str) -> list[float]:
    found = poses(room, output)
    return [position_error(found[name], truth(name)) for name in QUERIES]


def test_registered_keypoints_give_poses_nearer_to_the_truth(room: PatchedRoom) -> None:
    before = room.localize(OFF, "off")
    report = room.localize()
    assert report.done == before.done == len(QUERIES)
    assert np.median(errors(room, "localized")) < 0.5 * np.median(errors(room, "off"))
    assert "refined" not in before.details
    assert report.details["refined"] == len(QUERIES)
    assert (
        0 < report.details["keypoints_moved"] < report.details["keypoints_registered"]
    )
    for line in ("median step", "median error before", "median error after"):
        assert re.search(rf"  {line}: [0-9.]+ px\n", report.to_text())
    for name in QUERIES:
        result = read_localized(room.root / "localized", name)
        assert result is not None and result.refined is not None
        assert result.refined.after < 0.5 * result.refined.before
        # noise of up to a pixel along both axes
        assert 0.3 < result.refined.median_step < 1.5


def test_poses_do_not_depend_on_the_number_of_workers(room: PatchedRoom) -> None:
    contents = []
    for workers in (1, 3):
        output = f"with {workers}"
        room.localize(
            output=output, options=dataclasses.replace(QUIET, workers=workers)
        )
        contents.append(files_below(room.root / output, VOLATILE))
    assert contents[0] == contents[1]


def test_without_patches_or_pixels_poses_are_as_without_refinement(
    room: PatchedRoom,
) -> None:
    room.localize(OFF, "off")
    (room.map_path / PATCHES_NAME).rename(room.root / PATCHES_NAME)
    report = room.localize(output="without patches")
    assert report.details["patches"] == "none in the map"
    (room.root / PATCHES_NAME).rename(room.map_path / PATCHES_NAME)
    for name in QUERIES:
        (room.query / "sensors/records_data" / name).unlink()
    report = room.localize(output="without pixels")
    assert (report.done, report.details["refined"]) == (len(QUERIES), 0)
    assert report.warnings == (
        "2 queries cannot be refined without image file: 'query/0.png', 'query/1.png'; "
        f"expected in {room.query / 'sensors/records_data'}",
    )
    assert report.details["keypoints_moved"] == 0
    wanted = poses(room, "off")
    for output in ("without patches", "without pixels"):
        for name, pose in poses(room, output).items():
            np.testing.assert_array_equal(pose.matrix(), wanted[name].matrix())


def test_what_determines_a_pose_is_noticed_when_it_changes(room: PatchedRoom) -> None:
    room.localize()
    assert room.localize().skipped == len(QUERIES)
    # of one query other pixels, of the same size
    path = room.query / "sensors/records_data" / min(QUERIES)
    with Image.open(path) as image:
        brighter = image.point(lambda value: min(255, round(1.2 * value)))
    brighter.save(path)
    report = room.localize()
    assert (report.done, report.skipped) == (1, 1)
    # and of the map other patches
    records = np.load(room.map_path / PATCHES_NAME)
    records["pixels"][::2] = 0
    np.save(room.map_path / PATCHES_NAME, records)
    report = room.localize()
    assert (report.done, report.skipped) == (2, 0)


@pytest.mark.parametrize("change", ["noise", "elsewhere"])
def test_patches_of_something_else_move_no_query(
    room: PatchedRoom, change: str
) -> None:
    records = np.load(room.map_path / PATCHES_NAME)
    if change == "noise":
        rng = np.random.default_rng(0)
        pixels = records["pixels"]
        records["pixels"] = rng.integers(1, 256, pixels.shape, dtype=np.uint8)
    else:
        records["xyz"] += 0.01
    np.save(room.map_path / PATCHES_NAME, records)
    room.localize(OFF, "off")
    report = room.localize()
    assert report.done == len(QUERIES)
    assert report.details["keypoints_moved"] <= 10
    assert max(errors(room, "localized")) < 2 * max(errors(room, "off"))


@pytest.mark.parametrize(
    "content, found",
    [
        (b"\x93NUMPY\x01\x00", "found no readable NumPy array"),
        (b"", "found no readable NumPy array"),
        (b"PK\x03\x04", "found no readable NumPy array"),
        (b"PK\x05\x06" + bytes(18), "found no readable NumPy array"),
        (None, "found an array of float64"),
        ("part", "found patches of 100 points, but a map of"),
    ],
)
def test_broken_patches_are_one_line_with_the_way_out(
    room: PatchedRoom, content: bytes | str | None, found: str
) -> None:
    path = room.map_path / PATCHES_NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, np.load(path)[:100] if content else np.zeros(3))
    with pytest.raises(DatasetError, match=found) as raised:
        room.localize()
    said = str(raised.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert "remove it, or map again with kapture_r2d2_map --force" in said
    assert room.localize(OFF).done == len(QUERIES)


def test_patches_are_found_beside_the_model_too(room: PatchedRoom) -> None:
    room.localize()
    room.localize(output="of the model", map_path=room.map_path / "sparse")
    of_model = poses(room, "of the model")
    for name, pose in poses(room, "localized").items():
        np.testing.assert_array_equal(pose.matrix(), of_model[name].matrix())


def write_refined(room: PatchedRoom, *, away: float) -> None:
    """A map whose record says that keypoints were refined, by up to so many pixels."""
    rng = np.random.default_rng(0)
    model = pycolmap.Reconstruction(str(room.map_path / "sparse"))
    for image in model.images.values():
        for point in image.points2D:
            point.xy = point.xy + rng.uniform(-away, away, 2)
    model.write(str(room.map_path / "sparse"))
    rows = "".join(
        f"{row}, r2d2_refined, {model.images[element.image_id].name}, "
        f"{element.point2D_idx}\n"
        for row, point in enumerate(map(model.point3D, sorted(model.points3D)))
        for element in point.track.elements
    )
    table = room.map_path / "kapture/reconstruction/observations.txt"
    table.write_text(f"# kapture format: 1.1\n{rows}")


def test_a_map_of_refined_keypoints_takes_the_extracted_ones(room: PatchedRoom) -> None:
    write_refined(room, away=1.4)
    assert room.localize().done == len(QUERIES)
    with pytest.raises(DatasetError, match="a map of keypoints of type r2d2_refined"):
        check_keypoints_type(room.map_path, "sift")


def test_a_map_of_other_positions_than_refined_ones_is_refused(
    room: PatchedRoom,
) -> None:
    write_refined(room, away=9.0)
    with pytest.raises(DatasetError, match="4 map images differ from those in the map"):
        room.localize()


def test_an_orientation_tag_turns_no_pixels(room: PatchedRoom) -> None:
    """Keypoints lie in the pixels as stored."""
    room.localize()
    before = poses(room, "localized")
    for name in QUERIES:
        path = room.query / "sensors/records_data" / name
        with Image.open(path) as image:
            tags = image.getexif()
            tags[ExifTags.Base.Orientation] = 6
            image.save(path, exif=tags)
    report = room.localize()
    assert (report.done, report.details["refined"]) == (len(QUERIES), len(QUERIES))
    for name, pose in poses(room, "localized").items():
        np.testing.assert_array_equal(pose.matrix(), before[name].matrix())


def join_to_rig(room: PatchedRoom) -> None:
    """Make the queries images of one rig at one time."""
    data = kcsv.kapture_from_dir(str(room.query))
    first, second = sorted(QUERIES)
    data.rigs, data.trajectories = kapture.Rigs(), None
    data.records_camera = kapture.RecordsCamera()
    for sensor_id, name in (("left", first), ("right", second)):
        data.sensors[sensor_id] = data.sensors["camera"]
        data.records_camera[0, sensor_id] = name
        cam_from_rig = truth(name) * truth(first).inverse()
        data.rigs["rig", sensor_id] = kapture_from_rigid3d(cam_from_rig)
    del data.sensors["camera"]
    kcsv.kapture_to_dir(str(room.query), data)


def test_cameras_of_a_rig_are_registered_each_in_its_image(room: PatchedRoom) -> None:
    join_to_rig(room)
    room.localize(OFF, "off")
    report = room.localize()
    assert report.details["in_rigs"] == report.details["refined"] == 2
    assert sum(errors(room, "localized")) < 0.6 * sum(errors(room, "off"))
    for name in QUERIES:
        found = read_localized(room.root / "localized", name)
        assert found is not None and found.refined is not None
        assert found.refined.after < 0.6 * found.refined.before


@pytest.mark.parametrize("broken", [False, True])
def test_the_other_cameras_of_a_rig_are_registered_without_an_image(
    room: PatchedRoom, broken: bool
) -> None:
    join_to_rig(room)
    room.localize(OFF, "off")
    first, second = sorted(QUERIES)
    path = room.query / "sensors/records_data" / first
    path.write_bytes(path.read_bytes()[:5000]) if broken else path.unlink()
    report = room.localize()
    assert (report.done, report.details["refined"]) == (2, 1)
    alone = read_localized(room.root / "localized", first)
    assert alone is not None and alone.refined is None
    assert sum(errors(room, "localized")) < 0.8 * sum(errors(room, "off"))
