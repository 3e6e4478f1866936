"""Text files of poses: named as the servers want them, read back, refused by line."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pose_files import (
    read_pose_file,
    read_submission,
    write_pose_file,
    write_submission,
)
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from tests.scenes.kapture_files import write_dataset, write_rig_dataset
from tests.scenes.poses import assert_same_pose, numbers, random_poses

NAMES = ["query/night/b c.jpg", "query/day/é.jpg", "query/day/a.jpg"]
FORMATS = ["gangnam", "robotcar", "aachen", "extended_cmu", "eth_ms"]
POSE = "1 0 0 0 0 0 0"


@pytest.fixture
def dataset(tmp_path):
    return open_dataset(write_dataset(tmp_path / "dataset", NAMES))


def first_fields(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.rsplit(" ", 7)[0] for line in lines]


def test_a_line_is_a_name_and_the_world_to_camera_pose(tmp_path):
    pose = random_poses("a")["a"]
    write_pose_file(tmp_path / "poses.txt", {"x y.jpg": pose})
    expected = " ".join(["x y.jpg", *map(str, numbers(pose))]) + "\n"
    assert (tmp_path / "poses.txt").read_text() == expected


@pytest.mark.parametrize(
    "pose_format, expected",
    [
        ("gangnam", sorted(NAMES)),
        ("robotcar", ["day/a.jpg", "day/é.jpg", "night/b c.jpg"]),
        ("aachen", ["a.jpg", "b c.jpg", "é.jpg"]),
        ("extended_cmu", ["a.jpg", "b c.jpg", "é.jpg"]),
        ("eth_ms", ["0/cam", "1/cam", "2/cam"]),
    ],
)
def test_names_of_each_format(tmp_path, dataset, pose_format, expected):
    path = tmp_path / "poses.txt"
    write_submission(path, dataset, random_poses(NAMES), pose_format)
    assert first_fields(path) == expected


@pytest.mark.parametrize("pose_format", FORMATS)
@pytest.mark.parametrize("read_as", ["the same", "auto"])
def test_every_format_reads_back(tmp_path, dataset, pose_format, read_as):
    path = tmp_path / "poses.txt"
    poses = random_poses(NAMES)
    write_submission(path, dataset, poses, pose_format)
    found = read_submission(
        path, dataset, pose_format if read_as == "the same" else "auto"
    )
    assert found.unknown == ()
    assert list(found.cam_from_world) == sorted(NAMES)
    for name in NAMES:
        assert_same_pose(found.cam_from_world[name], poses[name], atol=1e-15)


@pytest.mark.parametrize("pose_format", FORMATS)
def test_two_runs_write_the_same_bytes(tmp_path, dataset, pose_format):
    poses = random_poses(NAMES)
    write_submission(tmp_path / "a.txt", dataset, poses, pose_format)
    again = dict(reversed(poses.items()))
    write_submission(tmp_path / "b.txt", dataset, again, pose_format)
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def kapture_lines(path):
    """What a kapture exporter wrote, by the first field."""
    lines = path.read_text().splitlines()
    rows = (line.rsplit(" ", 7) for line in lines)
    return {name: np.array(row, dtype=float) for name, *row in rows}


@pytest.mark.parametrize(
    "pose_format, flags",
    [
        ("aachen", []),
        ("robotcar", ["-p"]),
        ("gangnam", ["--full_file_name"]),
        ("eth_ms", None),
    ],
)
def test_the_same_lines_as_the_exporters_of_kapture(
    tmp_path, monkeypatch, pose_format, flags
):
    module = "LTVL2020" if flags is not None else "ETH_MS_LTVL"
    root = write_rig_dataset(tmp_path / "rigs")
    records = root / "sensors/records_camera.txt"
    text = records.read_text()
    for camera in ("left", "right", "alone"):  # kapture keeps the last of equal names
        text = text.replace(f"{camera}/", f"{camera}/{camera}_")
    if pose_format == "robotcar":
        text = text.replace("left_", "").replace("right_", "").replace("alone_", "")
    records.write_text(text)
    exporter = pytest.importorskip(f"tools.kapture_export_{module}")
    main = {
        "LTVL2020": "export_ltvl2020_command_line",
        "ETH_MS_LTVL": "export_ETH_MS_LTVL_command_line",
    }[module]
    theirs = tmp_path / "theirs.txt"
    arguments = ["-i", str(root), "-o", str(theirs), *(flags or [])]
    monkeypatch.setattr(sys, "argv", ["exporter", *arguments])
    getattr(exporter, main)()
    dataset = open_dataset(root)
    ours = tmp_path / "ours.txt"
    poses = read_camera_poses(dataset).cam_from_world
    write_submission(ours, dataset, poses, pose_format)
    expected, found = kapture_lines(theirs), kapture_lines(ours)
    assert found.keys() == expected.keys() and len(found) >= 3
    for name, row in expected.items():
        sign = np.sign(row[:4] @ found[name][:4])  # q and -q are one rotation
        np.testing.assert_allclose(found[name][:4] * sign, row[:4], atol=1e-12)
        np.testing.assert_allclose(found[name][4:], row[4:], atol=1e-12)


def test_the_pose_of_a_rig_gives_those_of_its_cameras(tmp_path):
    dataset = open_dataset(write_rig_dataset(tmp_path / "rigs"))
    poses = read_camera_poses(dataset).cam_from_world
    path = tmp_path / "poses.txt"
    write_submission(path, dataset, {n: poses[n] for n in poses if "2" in n}, "eth_ms")
    assert first_fields(path) == ["2/alone", "2/cart"]
    write_submission(path, dataset, poses, "eth_ms")
    assert first_fields(path) == ["1/cart", "2/alone", "2/cart"]
    found = read_submission(path, dataset, "eth_ms").cam_from_world
    assert found.keys() == poses.keys()
    for name, pose in poses.items():
        assert_same_pose(found[name], pose)


def test_names_that_would_be_alike_are_refused(tmp_path):
    names = ["left/1.jpg", "right/1.jpg"]
    dataset = open_dataset(write_dataset(tmp_path / "dataset", names))
    path = tmp_path / "poses.txt"
    with pytest.raises(DatasetError, match="'1.jpg' could be image 'left/1.jpg' or"):
        write_submission(path, dataset, random_poses(names), "aachen")
    assert not path.exists()
    path.write_text(f"1.jpg {POSE}\n")
    with pytest.raises(DatasetError, match="'1.jpg' could be image 'left/1.jpg' or"):
        read_submission(path, dataset, "aachen")
    write_submission(path, dataset, random_poses(names), "robotcar")
    assert read_submission(path, dataset).cam_from_world.keys() == set(names)


def test_equal_file_names_do_not_matter_where_the_file_has_neither(tmp_path):
    names = ["left/1.jpg", "right/1.jpg", "2.jpg"]
    dataset = open_dataset(write_dataset(tmp_path / "dataset", names))
    (tmp_path / "poses.txt").write_text(f"2.jpg {POSE}\n")
    found = read_submission(tmp_path / "poses.txt", dataset, "aachen")
    assert list(found.cam_from_world) == ["2.jpg"]


def test_unknown_names_are_distinguished(tmp_path, dataset):
    path = tmp_path / "poses.txt"
    path.write_text(f"a.jpg {POSE}\nz.jpg {POSE}\ny.jpg {POSE}\n", encoding="utf-8")
    found = read_submission(path, dataset)
    assert list(found.cam_from_world) == ["query/day/a.jpg"]
    assert found.unknown == ("y.jpg", "z.jpg")


def test_unknown_images_are_not_written(tmp_path, dataset):
    with pytest.raises(DatasetError, match="pose of 'x.jpg', not an image of"):
        write_submission(
            tmp_path / "poses.txt", dataset, random_poses(["x.jpg"]), "gangnam"
        )


@pytest.mark.parametrize("name", ["", " a.jpg", "a.jpg ", "a\nb.jpg", "a\u2028b.jpg"])
def test_names_that_would_not_read_back_are_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="cannot be in a line"):
        write_pose_file(tmp_path / "poses.txt", random_poses([name]))
    assert not (tmp_path / "poses.txt").exists()


@pytest.mark.parametrize("name", ["a  b.jpg", "1 2 3 4 5 6 7 8.jpg", "#1,x.jpg", "é"])
def test_odd_names_read_back(tmp_path, name):
    poses = random_poses([name])
    write_pose_file(tmp_path / "poses.txt", poses)
    found = read_pose_file(tmp_path / "poses.txt")
    assert list(found) == [name]
    assert_same_pose(found[name], poses[name], atol=1e-15)


def test_no_pose_is_an_empty_file(tmp_path, dataset):
    write_submission(tmp_path / "poses.txt", dataset, {}, "aachen")
    assert (tmp_path / "poses.txt").read_bytes() == b""
    assert read_submission(tmp_path / "poses.txt", dataset).cam_from_world == {}


def test_files_of_other_systems_are_read(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_bytes(f"\ufeffa.jpg {POSE}\r\n\r\nb.jpg\t{POSE}\r\n".encode())
    assert list(read_pose_file(path)) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "line, reason",
    [
        ("b.jpg 1 0 0 0 0 0", "found 'b.jpg 1 0 0 0 0 0', expected 'name qw"),
        ("1 0 0 0 0 0 0", "expected 'name qw qx qy qz tx ty tz'"),
        ("b.jpg 1 0 0 zero 0 0 0", "expected 'name qw qx qy qz tx ty tz'"),
        ("b.jpg, 1, 0, 0, 0, 0, 0, 0", "expected 'name qw qx qy qz tx ty tz'"),
        ("b.jpg 1 0 0 0 nan 0 0", "expected finite numbers"),
        ("b.jpg inf 0 0 0 0 0 0", "expected finite numbers"),
        ("b.jpg 0.9 0 0 0 0 0 0", "of length 0.9, expected 1"),
        ("b.jpg 0 0 0 0 1 0 0", "of length 0, expected 1"),
        (f"a.jpg {POSE}", "'a.jpg' again, first in line 1"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, reason):
    path = tmp_path / "poses.txt"
    path.write_text(f"a.jpg {POSE}\n\n{line}\n")
    with pytest.raises(DatasetError) as error:
        read_pose_file(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_rounded_quaternions_are_normalised(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text("a.jpg 0.707 0.707 0 0 0 0 0\n")
    rotation = read_pose_file(path)["a.jpg"].rotation
    assert rotation.norm() == pytest.approx(1, abs=1e-15)
    assert np.degrees(rotation.angle()) == pytest.approx(90, abs=1e-12)


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "poses.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="poses.txt: not UTF-8"):
        read_pose_file(tmp_path / "poses.txt")


def test_a_place_that_cannot_be_written(tmp_path, dataset):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_submission(tmp_path / "file/poses.txt", dataset, {}, "aachen")


@pytest.mark.parametrize("name", ["a\u3000b.jpg", "4.42\u202fPM.jpg", "v\u00a01 2.jpg"])
def test_names_with_spaces_of_any_kind_read_back(tmp_path, name):
    poses = random_poses([name])
    write_pose_file(tmp_path / "poses.txt", poses)
    assert list(read_pose_file(tmp_path / "poses.txt")) == [name]
