"""Files are compared with their cameras by name, and what happened to them is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.camera_sizes import (
    CameraImage,
    compare_sizes,
    size_difference,
    unlike_sensors,
)
from r2d2_kapture.io.kapture.dataset import open_dataset
from tests.scenes.images import write_image_files
from tests.scenes.kapture_files import write_dataset

NAMES = ["a.png", "sub/b.png", "c.png"]  # of a camera of 64 x 48


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((64, 48), None),
        ((48, 64), "found 48 x 64 pixels, expected 64 x 48 of the camera; turned by"),
        ((32, 24), "resized by 0.5 after calibration: scale size, focal lengths"),
        ((96, 72), "resized by 1.5"),
        ((33, 24), "resized by 0.5156"),  # rounded to whole pixels
        ((24, 32), "turned by 90 degrees and resized by 0.5"),
        ((64, 32), "cropped, or of another camera"),
    ],
)
def test_what_happened_to_a_file_is_reported(
    size: tuple[int, int], reason: str | None
) -> None:
    image = CameraImage(path=Path("absent"), size=(64, 48), camera="the camera")
    found = size_difference(image, size)
    assert (found is None) == (reason is None)
    assert reason is None or reason in str(found)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize(
    ("orientation", "reason"),
    [
        (6, "its EXIF orientation 6 is not applied to pixels: store it upright"),
        (8, "its EXIF orientation 8 is not applied"),
        (3, "turned by 90 degrees after calibration: turn it back"),
    ],
)
def test_an_orientation_that_turns_the_file_is_named(
    tmp_path: Path, suffix: str, orientation: int, reason: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("L", (48, 64)).save(path, exif=exif)
    image = CameraImage(path=path, size=(64, 48), camera="the camera")
    found = compare_sizes({"a": image})
    assert reason in found.unlike["a"].reason


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, NAMES)
    write_image_files(root, {"sub/b.png": (32, 24)})
    dataset = open_dataset(root)
    (failure,) = unlike_sensors(dataset).values()
    assert failure.name == "sub/b.png"
    assert "expected 64 x 48 of camera 'cam' of sensors.txt" in failure.reason
    assert unlike_sensors(dataset, ["a.png", "c.png"]) == {}


def test_where_no_file_fits_the_dataset_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, NAMES)
    write_image_files(root, {name: (32, 24) for name in NAMES})
    (root / "sensors/records_data/c.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="none of 2 image files has the size") as e:
        unlike_sensors(open_dataset(root))
    assert "'a.png': found 32 x 24" in str(e.value) and "\n" not in str(e.value)


def test_files_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    assert unlike_sensors(open_dataset(write_dataset(tmp_path, NAMES))) == {}
