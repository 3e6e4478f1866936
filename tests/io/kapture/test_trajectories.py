"""Camera poses are read through rigs as kapture composes them, and written whole."""

from __future__ import annotations

import logging

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.io.kapture.trajectories import read_camera_poses, write_camera_poses
from tests.scenes.kapture_files import (
    table,
    write_dataset,
    write_files,
    write_rig_dataset,
)
from tests.scenes.poses import assert_same_pose, numbers, random_poses

NAMES = ["b c.jpg", "sub/é.jpg", "a.jpg"]
IDENTITY = "1, 0, 0, 0, 0, 0, 0"


def poses_of(root):
    return read_camera_poses(open_dataset(root))


def kapture_poses(root):
    """What kapture itself makes of a dataset: by image name."""
    data = kcsv.kapture_from_dir(str(root))
    logging.getLogger("kapture").setLevel(logging.CRITICAL)
    trajectories = kapture.rigs_remove(data.trajectories, data.rigs)
    return {
        name: rigid3d_from_kapture(trajectories[time, camera])
        for time, camera, name in kapture.flatten(data.records_camera)
    }


def test_poses_of_single_cameras(tmp_path):
    expected = random_poses(NAMES)
    poses = poses_of(write_dataset(tmp_path, NAMES, expected))
    assert list(poses.cam_from_world) == sorted(NAMES)
    assert poses.without_pose == ()
    for name in NAMES:
        assert_same_pose(poses.cam_from_world[name], expected[name])


def test_nested_rigs_compose_as_in_kapture(tmp_path, capfd):
    write_rig_dataset(tmp_path)
    found = poses_of(tmp_path)
    assert capfd.readouterr().err == ""  # no progress bar
    expected = kapture_poses(tmp_path)
    assert found.cam_from_world.keys() == expected.keys()
    assert len(expected) == 4
    for name, pose in expected.items():
        assert_same_pose(found.cam_from_world[name], pose)


def test_the_rigs_of_the_gallery(shared):
    root = shared / "data/virtual_gallery/mapping"
    found = poses_of(root).cam_from_world
    expected = kapture_poses(root)
    assert len(found) == len(expected) == 12
    for name, pose in expected.items():
        assert_same_pose(found[name], pose)


def test_a_camera_is_where_it_says_before_where_its_rig_is(tmp_path):
    write_rig_dataset(tmp_path)
    own = random_poses(["own"], seed=9)["own"]
    with (tmp_path / "sensors/trajectories.txt").open("a") as file:
        file.write(table([[1, "left", *numbers(own)]]) + "\n")
    poses = poses_of(tmp_path).cam_from_world
    assert_same_pose(poses["run/left/1.jpg"], own)
    assert len(poses) == 4


@pytest.mark.parametrize("row", ["0, cam, 1, 0, 0, 0, , , ", "0, cam, , , , , 1, 2, 3"])
def test_images_of_partial_and_missing_poses_are_listed(tmp_path, row):
    write_dataset(tmp_path, NAMES)
    write_files(tmp_path, trajectories=f"{row}\n2, cam, {IDENTITY}")
    poses = poses_of(tmp_path)
    assert list(poses.cam_from_world) == ["a.jpg"]
    assert poses.without_pose == ("b c.jpg", "sub/é.jpg")


def test_cameras_of_a_rig_of_unknown_place_are_without_pose(tmp_path):
    write_rig_dataset(tmp_path)
    write_files(
        tmp_path,
        rigs=f"head, left, , , , , 0, 0, 0\nhead, right, {IDENTITY}\n"
        f"cart, head, {IDENTITY}",
    )
    assert poses_of(tmp_path).without_pose == ("run/left/1.jpg", "run/left/2.jpg")


def test_without_trajectories_no_image_has_a_pose(tmp_path):
    poses = poses_of(write_dataset(tmp_path, NAMES))
    assert poses.cam_from_world == {}
    assert poses.without_pose == tuple(sorted(NAMES))


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_must_be_finite(tmp_path, number):
    write_dataset(tmp_path, NAMES)
    write_files(tmp_path, trajectories=f"2, cam, 1, 0, 0, 0, 0, {number}, 0")
    with pytest.raises(DatasetError, match="trajectories.txt: 'cam' at 2: found") as e:
        poses_of(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("inner", ["cart", "head"])
def test_a_rig_inside_itself_is_refused(tmp_path, inner):
    write_rig_dataset(tmp_path)
    with (tmp_path / "sensors/rigs.txt").open("a") as file:
        file.write(f"head, {inner}, {IDENTITY}\n")
    with pytest.raises(DatasetError, match="rigs.txt: rig '.*' found inside itself"):
        poses_of(tmp_path)


def test_poses_of_unknown_devices_alone_are_refused(tmp_path):
    write_dataset(tmp_path, NAMES)
    write_files(tmp_path, trajectories=f"0, camera, {IDENTITY}\n1, laser, {IDENTITY}")
    with pytest.raises(DatasetError, match="trajectories.txt: found poses of no sens"):
        poses_of(tmp_path)
    write_files(tmp_path, trajectories=f"0, cam, {IDENTITY}\n1, laser, {IDENTITY}")
    assert list(poses_of(tmp_path).cam_from_world) == ["b c.jpg"]


def test_what_is_written_reads_back(tmp_path) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "source", NAMES))
    poses = random_poses(NAMES[:2])
    write_camera_poses(tmp_path / "new", dataset, poses)
    found = poses_of(tmp_path / "new")
    assert found.without_pose == ("a.jpg",)
    for name in NAMES[:2]:
        assert_same_pose(found.cam_from_world[name], poses[name], atol=1e-15)
    data = kcsv.kapture_from_dir(str(tmp_path / "new"))
    assert data.cameras["cam"].camera_params == [64, 48, 60, 60, 31.5, 23.5]
    assert data.trajectories[0, "cam"].r_raw == numbers(poses["b c.jpg"])[:4]
    write_camera_poses(tmp_path / "none", dataset, {})
    assert poses_of(tmp_path / "none").without_pose == tuple(sorted(NAMES))
    with pytest.raises(DatasetError, match="pose of 'x.jpg', not an image of"):
        write_camera_poses(tmp_path / "no", dataset, {"x.jpg": pycolmap.Rigid3d()})
    assert not (tmp_path / "no").exists()


def test_camera_poses_of_a_rig_read_back_with_the_rig_to_the_byte(tmp_path) -> None:
    dataset = open_dataset(write_rig_dataset(tmp_path / "source"))
    poses = read_camera_poses(dataset).cam_from_world
    write_camera_poses(tmp_path / "new", dataset, poses)
    copy = open_dataset(tmp_path / "new")
    assert copy.data.rigs.keys() == {"head", "cart"}
    found = read_camera_poses(copy).cam_from_world
    for name, pose in poses.items():
        assert_same_pose(found[name], pose, atol=1e-15)
    write_camera_poses(tmp_path / "again", dataset, dict(reversed(poses.items())))
    first = {p.name: p.read_bytes() for p in (tmp_path / "new/sensors").iterdir()}
    again = {p.name: p.read_bytes() for p in (tmp_path / "again/sensors").iterdir()}
    assert first == again
    assert set(first) == {
        "sensors.txt",
        "rigs.txt",
        "records_camera.txt",
        "trajectories.txt",
    }


def test_an_interrupted_write_leaves_no_poses_of_other_records(tmp_path, monkeypatch):
    source = open_dataset(write_dataset(tmp_path / "source", NAMES))
    other = open_dataset(write_dataset(tmp_path / "other", [f"new/{n}" for n in NAMES]))
    target = tmp_path / "target"
    write_camera_poses(target, source, random_poses(NAMES))

    def fail(path, text):
        if path.name == "trajectories.txt":
            raise KeyboardInterrupt
        path.write_text(text)

    monkeypatch.setattr("r2d2_kapture.io.kapture.trajectories.write_text_atomic", fail)
    with pytest.raises(KeyboardInterrupt):
        write_camera_poses(target, other, random_poses(other.image_names))
    assert poses_of(target).without_pose == tuple(sorted(other.image_names))


def test_an_interrupted_write_of_the_same_records_keeps_the_old_poses(
    tmp_path, monkeypatch
):
    source = open_dataset(write_dataset(tmp_path / "source", NAMES))
    old = random_poses(NAMES)
    write_camera_poses(tmp_path / "target", source, old)

    def fail(path, text):
        raise OutputError("disk full")

    monkeypatch.setattr("r2d2_kapture.io.kapture.trajectories.write_text_atomic", fail)
    with pytest.raises(OutputError):
        write_camera_poses(tmp_path / "target", source, random_poses(NAMES, seed=1))
    found = poses_of(tmp_path / "target").cam_from_world
    for name in NAMES:
        assert_same_pose(found[name], old[name])


def test_a_rig_of_an_earlier_dataset_does_not_stay(tmp_path):
    target = tmp_path / "target"
    rigs = open_dataset(write_rig_dataset(tmp_path / "rigs"))
    write_camera_poses(target, rigs, read_camera_poses(rigs).cam_from_world)
    plain = open_dataset(write_dataset(tmp_path / "plain", NAMES))
    write_camera_poses(target, plain, random_poses(NAMES))
    assert not (target / "sensors/rigs.txt").exists()
    assert len(poses_of(target).cam_from_world) == 3


def test_poses_of_a_synthetic_reconstruction(tmp_path):
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=5)
    reconstruction = pycolmap.synthesize_dataset(options)
    poses = {i.name: i.cam_from_world() for i in reconstruction.images.values()}
    dataset = open_dataset(write_dataset(tmp_path / "source", sorted(poses)))
    write_camera_poses(tmp_path / "new", dataset, poses)
    found = poses_of(tmp_path / "new").cam_from_world
    assert found.keys() == poses.keys() and len(poses) >= 5
    for image in reconstruction.images.values():
        center = found[image.name].inverse().translation
        np.testing.assert_allclose(center, image.projection_center(), atol=1e-12)
