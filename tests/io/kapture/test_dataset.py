"""Datasets are untrusted: what is unsafe is refused before kapture reads it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import kapture
import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name, open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.local_features import open_local_features
from tests.scenes.kapture_files import write_dataset, write_files

STRANGE_NAMES = [
    "Screenshot 2026-05-12 at 4.42.48\u202fPM.jpg",
    "Sn\u00edmek v\u00a013.05.jpg",
    "\u5199\u771f\u30001.jpg",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.jpg",
    "Cafe\u0301.jpg",
    "\u200fright\u202eto left.jpg",
    "\uf8ff private.jpg",
    "folder \u00a0/ inner /1.jpg",
    "zero\u200bwidth\ufeff.jpg",
]
CONFIG_ROWS = {
    "keypoints": "x, {dtype}, 3\n",
    "descriptors": "x, {dtype}, 128, x, L2\n",
    "global_features": "x, {dtype}, 128, L2\n",
}


def test_names_come_in_order_of_time_each_once(kapture_root: Path) -> None:
    write_files(kapture_root, records_camera="1, cam, a.png\n0, cam, b.png")
    assert open_dataset(kapture_root).image_names == ("b.png", "a.png")
    # the same row twice says nothing else
    write_files(kapture_root, records_camera="1, cam, a.png\n1, cam, a.png")
    assert open_dataset(kapture_root).image_names == ("a.png",)


TWO_CAMERAS = (
    "cam, , camera, PINHOLE, 64, 48, 60, 60, 31.5, 23.5\n"
    "wide, , camera, SIMPLE_PINHOLE, 64, 48, 30, 31.5, 23.5\n"
    "laser, , lidar"
)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"records_camera": "0, cam, a.png\n1, cam, b.png\n0, cam, c.png"},
            "records_camera.txt: images 'a.png' and 'c.png' have the same timestamp 0 "
            "and camera 'cam', .* give each image a timestamp of its own",
        ),
        (
            {"records_camera": "7, cam, a.png\n07, cam, c.png"},
            "images 'a.png' and 'c.png' have the same timestamp 7",
        ),
        (
            {"records_camera": "0, cam, a.png\n1, cam, a.png"},
            "image 'a.png' recorded at 0, 'cam' and at 1, 'cam', expected one record",
        ),
        (
            {"records_camera": "0, cam, a.png\n0, wide, a.png"},
            "image 'a.png' recorded at 0, 'cam' and at 0, 'wide'",
        ),
        (
            {"records_camera": "0, laser, a.png"},
            "'laser' is of type 'lidar' in sensors.txt, expected 'camera'",
        ),
        (
            {"rigs": "rig, cam, 1, 0, 0, 0, 0, 0, 0", "records_camera": "0, rig, a"},
            "'rig' is a rig of rigs.txt, expected one of its cameras",
        ),
        (
            {"sensors": f"{TWO_CAMERAS}\ncam, , camera, UNKNOWN_CAMERA, 64, 48"},
            "sensors.txt: found two rows of 'cam', ', camera, PINHOLE, 64, .*"
            "', camera, UNKNOWN_CAMERA, 64, 48', expected one",
        ),
        (
            {"rigs": "r, cam, 1, 0, 0, 0, 0, 0, 0\nr, cam, 1, 0, 0, 0, 0, 0, 9"},
            "rigs.txt: found two rows of 'r, cam'",
        ),
        (
            {"trajectories": "0, cam, 1, 0, 0, 0, 0, 0, 0\n00, cam, , , , , 0, 0, 9"},
            "trajectories.txt: found two rows of '00, cam'",
        ),
        (
            {"records_depth": "0, cam, a.depth\n0, cam, b.depth"},
            "records_depth.txt: found two rows of '0, cam'",
        ),
        (
            {"sensors": "cam, , camera, PINHOLE, 64, 48, 60, 31.5, 23.5"},
            "camera 'cam': found 5 numbers after PINHOLE, expected 6",
        ),
        (
            {"sensors": "cam, , camera, PINHOLE, 64, 48, 60, x, 31.5, 23.5"},
            "camera 'cam': found 'x' after PINHOLE",
        ),
        ({"sensors": "cam, , camera"}, "camera 'cam': found the model ''"),
        ({"sensors": "cam, camera"}, "found 'cam, camera', expected sensor_id, name"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    tmp_path: Path, tables: dict[str, str], message: str
) -> None:
    sound = {"sensors": TWO_CAMERAS, "records_camera": "0, cam, a.png\n1, wide, b.png"}
    write_files(tmp_path, **sound)
    open_dataset(tmp_path)
    write_files(tmp_path, **tables)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_rows_that_only_repeat_are_read(tmp_path: Path) -> None:
    pose = "1, 0, 0, 0, 0, 0, 0"
    write_files(
        tmp_path,
        sensors=f"{TWO_CAMERAS}\n{TWO_CAMERAS}",
        rigs=f"rig, cam, {pose}\nrig, cam, {pose}\nrig, wide, {pose}",
        trajectories=f"0, rig, {pose}\n0, rig, {pose}\n1, rig, {pose}",
        records_camera="0, cam, a.png\n0, wide, b.png\n1, cam, c.png",
    )
    assert open_dataset(tmp_path).image_names == ("a.png", "b.png", "c.png")


def test_descriptions_of_features_that_differ_are_refused(kapture_root: Path) -> None:
    folder = kapture_root / "reconstruction" / "keypoints" / "x"
    folder.mkdir(parents=True)
    path = folder / "keypoints.txt"
    path.write_text("# kapture format: 1.1\nx, float32, 2\nx, float32, 2\n")
    open_dataset(kapture_root)
    path.write_text("# kapture format: 1.1\nx, float32, 2\nx, float32, 4\n")
    with pytest.raises(DatasetError, match="keypoints.txt: found 2 descriptions"):
        open_dataset(kapture_root)


@pytest.mark.parametrize("kind", sorted(CONFIG_ROWS))
def test_a_dtype_that_is_code_is_never_run(kapture_root: Path, kind: str) -> None:
    marker = kapture_root / "ran"
    dtype = f"__import__('pathlib').Path('{marker}').touch()"
    folder = kapture_root / "reconstruction" / kind / "x"
    folder.mkdir(parents=True)
    (folder / f"{kind}.txt").write_text(
        "# kapture format: 1.1\n" + CONFIG_ROWS[kind].format(dtype=dtype)
    )
    with pytest.raises(DatasetError, match="dtype"):
        open_dataset(kapture_root)
    with pytest.raises(DatasetError, match="dtype"):
        open_local_features([kapture_root])
    assert not marker.exists()


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_code_hidden_behind_a_rare_line_end_is_never_run(
    kapture_root: Path, separator: str
) -> None:
    marker = kapture_root / "ran"
    code = f"__import__('pathlib').Path('{marker}').touch()"
    folder = kapture_root / "reconstruction" / "keypoints" / "x"
    folder.mkdir(parents=True)
    (folder / "keypoints.txt").write_text(
        f"# kapture format: 1.1\n{separator}#x, {code}, 3\nx, float32, 3\n",
        encoding="utf-8",
    )
    with pytest.raises(DatasetError):
        open_local_features([kapture_root])
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["../out.png", "a/../../out.png", "/etc/passwd", "..\\out.png", "C:\\x", "", "."],
)
def test_names_that_leave_the_dataset_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="leaves the dataset"):
        check_relative_name(name, tmp_path)


def test_a_record_that_climbs_out_is_refused(kapture_root: Path) -> None:
    write_dataset(kapture_root, ["a.png", "../../out.png"])
    with pytest.raises(DatasetError, match="records_camera.txt.*leaves"):
        open_dataset(kapture_root)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / "sensors/sensors.txt").unlink(), "no sensors/sensors.txt"),
        (lambda r: (r / "sensors/records_camera.txt").unlink(), "missing"),
        (
            lambda r: (r / "sensors/sensors.txt").write_text("# kapture format: 1.0\n"),
            "found a dataset of kapture 1.0, expected 1.1; convert it: python -c",
        ),
        (
            lambda r: (r / "sensors/sensors.txt").write_text("# kapture format: 2.0\n"),
            "found '# kapture format: 2.0', expected '# kapture format: 1.1'",
        ),
        (
            lambda r: (r / "sensors/sensors.txt").write_text(
                "\ufeff# kapture format: 1.1\n", encoding="utf-8"
            ),
            "byte-order mark",
        ),
        (lambda r: write_dataset(r, ["a, b.png"]), "'a, b.png' holds a comma"),
        (
            lambda r: (r / "sensors/records_camera.txt").write_text("x, cam, a.png\n"),
            "timestamp",
        ),
        (
            lambda r: (r / "sensors/records_camera.txt").write_text("0, no, a.png\n"),
            "camera 'no'",
        ),
        (
            lambda r: (r / "sensors/records_camera.txt").write_bytes(b"0, cam, \xff\n"),
            "UTF-8",
        ),
        (
            lambda r: (r / "sensors/sensors.txt").write_text(
                "# kapture format: 1.1\ncam, , camera, NO_MODEL, 1\n"
            ),
            "camera 'cam': found the model 'NO_MODEL', expected one of SIMPLE_PINHOLE",
        ),
        (
            lambda r: (r / "sensors/rigs.txt").write_text("rig, cam, 1\n"),
            "kapture cannot read",
        ),
    ],
)
def test_malformed_datasets_get_one_clear_line(
    kapture_root: Path, break_it, message: str
) -> None:
    break_it(kapture_root)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(kapture_root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_names_are_taken_as_the_file_system_has_them(
    kapture_root: Path, name: str
) -> None:
    write_dataset(kapture_root, ["a.png", name])
    dataset = open_dataset(kapture_root)
    assert dataset.image_names == ("a.png", name)
    recorded = [row[2] for row in kapture.flatten(dataset.data.records_camera)]
    assert recorded == ["a.png", name]
    assert dataset.left_out == ()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a,b.png", "'a, b.png' holds a comma"),
        ("bell\x07.png", r"'bell\x07.png' holds the character U+0007"),
        ("next\x85line.png", r"'next\x85line.png' holds the character U+0085"),
        ("line\u2028.png", r"'line\u2028.png' holds the character U+2028"),
        ("caf\udce9.png", r"'caf\xe9.png' holds the byte 0xE9, which is not UTF-8"),
    ],
)
def test_a_name_that_no_table_holds_leaves_that_image_out(
    kapture_root: Path, name: str, found: str
) -> None:
    rows = f"0, cam, {name}\n1, cam, a.png\n".encode("utf-8", "surrogateescape")
    (kapture_root / "sensors" / "records_camera.txt").write_bytes(rows)
    dataset = open_dataset(kapture_root)
    assert dataset.image_names == ("a.png",)
    (failure,) = dataset.left_out
    assert found in failure.reason
    assert failure.reason.endswith("rename the image")


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_a_root_that_is_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="expected the folder of a kapture dataset"):
        open_dataset(tmp_path / place)


@pytest.mark.parametrize(
    ("spelled", "dtype"),
    [
        ("float", "<f8"),
        ("double", "<f8"),
        ("np.float64", "<f8"),
        ("<class 'float'>", "<f8"),
        ("numpy.float32", "<f4"),
        ("<class 'numpy.float32'>", "<f4"),
        ("dtype('float32')", "<f4"),
        ("int", "<i8"),
        ("np.uint8", "|u1"),
    ],
)
def test_dtypes_are_read_as_tools_spell_them(
    kapture_root: Path, spelled: str, dtype: str
) -> None:
    folder = kapture_root / "reconstruction" / "keypoints" / "SIFT"
    folder.mkdir(parents=True)
    (folder / "keypoints.txt").write_text(f"SIFT, {spelled}, 4\n")
    rows = np.arange(12).reshape(3, 4).astype(dtype)
    rows.tofile(folder / "a.png.kpt")
    open_dataset(kapture_root)
    table = open_feature_table([kapture_root], "keypoints")
    np.testing.assert_array_equal(table.read("a.png"), rows.astype(np.float32))


@pytest.mark.parametrize("spelled", ["float()", "np.os.float", "complex", "getattr"])
def test_other_words_are_no_dtypes(kapture_root: Path, spelled: str) -> None:
    folder = kapture_root / "reconstruction" / "keypoints" / "SIFT"
    folder.mkdir(parents=True)
    (folder / "keypoints.txt").write_text(f"SIFT, {spelled}, 4\n")
    with pytest.raises(DatasetError, match="dtype"):
        open_dataset(kapture_root)


def write_old(root: Path) -> None:
    """A dataset of kapture 1.0 with keypoints of one image."""
    header = "# kapture format: 1.0\n"
    for path in (root / "sensors").glob("*.txt"):
        path.write_text(header + path.read_text().partition("\n")[2])
    folder = root / "reconstruction" / "keypoints"
    folder.mkdir(parents=True)
    (folder / "keypoints.txt").write_text(f"{header}r2d2, float32, 3\n")
    np.ones((2, 3), np.float32).tofile(folder / "a.png.kpt")


def test_the_upgrade_of_kapture_1_0_that_is_named_works(
    kapture_root: Path, tmp_path: Path
) -> None:
    write_dataset(kapture_root, ["a.png"])
    write_old(kapture_root)
    with pytest.raises(DatasetError, match="of kapture 1.0") as caught:
        open_dataset(kapture_root)
    with pytest.raises(DatasetError, match="keypoints of kapture 1.0"):
        open_feature_table([kapture_root], "keypoints")
    _, _, command = str(caught.value).partition("convert it: ")
    arguments = shlex.split(command)
    arguments[0] = sys.executable
    new = tmp_path / "new"
    places = {"OLD": str(kapture_root), "NEW": str(new)}
    subprocess.run([places.get(word, word) for word in arguments], check=True)
    assert open_dataset(new).image_names == ("a.png",)
    table = open_feature_table([new], "keypoints", "r2d2")
    np.testing.assert_array_equal(table.read("a.png"), np.ones((2, 3)))


def test_no_upgrade_is_named_for_a_dtype_that_it_would_run(kapture_root: Path) -> None:
    write_dataset(kapture_root, ["a.png"])
    write_old(kapture_root)
    config = kapture_root / "reconstruction" / "keypoints" / "keypoints.txt"
    config.write_text("r2d2, print('ran'), 3\n")
    with pytest.raises(DatasetError, match="dtype .print"):
        open_dataset(kapture_root)
    with pytest.raises(DatasetError, match="dtype .print"):
        open_feature_table([kapture_root], "keypoints")
