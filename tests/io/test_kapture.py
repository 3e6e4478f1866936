"""Datasets are untrusted: what is unsafe is refused before kapture reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.feature_table import open_local_features
from r2d2_kapture.io.kapture import check_relative_name, open_dataset
from tests.conftest import write_records

CONFIG_ROWS = {
    "keypoints": "x, {dtype}, 3\n",
    "descriptors": "x, {dtype}, 128, x, L2\n",
    "global_features": "x, {dtype}, 128, L2\n",
}


def test_names_come_in_order_of_time_each_once(kapture_root: Path) -> None:
    write_records(kapture_root, ["b c.png", "a.png", "b c.png"])
    assert open_dataset(kapture_root).image_names == ("b c.png", "a.png")


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
    "name", ["../out.png", "a/../../out.png", "/etc/passwd", "..\\out.png", "C:\\x", ""]
)
def test_names_that_leave_the_dataset_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="leaves the dataset"):
        check_relative_name(name, tmp_path)


def test_a_record_that_climbs_out_is_refused(kapture_root: Path) -> None:
    write_records(kapture_root, ["a.png", "../../out.png"])
    with pytest.raises(DatasetError, match="records_camera.txt.*leaves"):
        open_dataset(kapture_root)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / "sensors/sensors.txt").unlink(), "no sensors/sensors.txt"),
        (lambda r: (r / "sensors/records_camera.txt").unlink(), "missing"),
        (
            lambda r: (r / "sensors/sensors.txt").write_text("# kapture format: 1.0\n"),
            "kapture_upgrade",
        ),
        (lambda r: write_records(r, ["a, b.png"]), "commas"),
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


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_a_root_that_is_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="expected the folder of a kapture dataset"):
        open_dataset(tmp_path / place)
