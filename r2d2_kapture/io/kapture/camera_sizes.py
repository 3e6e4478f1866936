"""Whether image files have the size that their cameras say.

Intrinsics belong to pixels. Of an image that was resized, or turned upright, after its
camera was calibrated, every ray is wrong, and poses and points with it. Files that are
absent or unreadable say nothing: features may have been brought without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import image_orientation, image_size
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.types import Failure, some_names

READERS = 8
"""Threads that read headers."""
TRANSPOSED = (5, 6, 7, 8)
"""Orientations of EXIF that turn an image on its side."""

Size = tuple[int, int]
"""(W, H) in pixels."""


@dataclass(frozen=True, kw_only=True)
class CameraImage:
    """An image file and the size of its camera.

    Attributes:
        path: of the file, which may be absent.
        size: (W, H) in pixels that the camera has.
        camera: what messages call the camera.
    """

    path: Path
    size: Size
    camera: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of comparing image files with their cameras.

    Attributes:
        compared: files that are there and have a header.
        unlike: images whose file has another size than its camera, by name.
    """

    compared: int
    unlike: dict[str, Failure]

    def warnings(self) -> tuple[str, ...]:
        """What extraction says of such images, of which it can extract features."""
        if not self.unlike:
            return ()
        first = next(iter(self.unlike.values()))
        return (
            f"{len(self.unlike)} of {self.compared} image files have another size than "
            f"their camera: {some_names(self.unlike)}; {first.reason}; the features "
            "are in pixels of the files, but stages that use cameras leave such images "
            "out",
        )


def compare_sizes(images: Mapping[str, CameraImage]) -> Comparison:
    """Compare image files, of which only headers are read, with their cameras."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="header") as pool:
        found = dict(zip(images, pool.map(_size_or_none, images.values())))
    there = {name: size for name, size in found.items() if size is not None}
    unlike = {
        name: Failure(name=name, reason=reason)
        for name, size in there.items()
        if (reason := size_difference(images[name], size)) is not None
    }
    return Comparison(compared=len(there), unlike=unlike)


def unlike_cameras(
    images: Mapping[str, CameraImage], source: Path | str
) -> dict[str, Failure]:
    """Images whose files have another size than their cameras, by name.

    Args:
        images: by name.
        source: where the cameras are from, for the message.

    Raises:
        DatasetError: all files that are there; their cameras are of other images.
    """
    found = compare_sizes(images)
    if found.unlike and len(found.unlike) == found.compared:
        first = next(iter(found.unlike.values()))
        raise DatasetError(
            f"{source}: none of {found.compared} image files has the size of its "
            f"camera; the first, '{first.name}': {first.reason}"
        )
    return found.unlike


def dataset_images(
    dataset: Dataset, names: Iterable[str] | None = None
) -> dict[str, CameraImage]:
    """The image files of a dataset, in order of names, with their cameras' sizes.

    Args:
        dataset: its sensors and records.
        names: of images; None takes all.
    """
    wanted = frozenset(dataset.image_names if names is None else names)
    found = {}
    for _, sensor_id, name in image_records(dataset.data).values():
        if name in wanted:
            width, height = dataset.data.sensors[sensor_id].camera_params[:2]
            found[name] = CameraImage(
                path=dataset.image_path(name),
                size=(int(width), int(height)),
                camera=f"camera '{sensor_id}' of sensors.txt",
            )
    return found


def unlike_sensors(
    dataset: Dataset, names: Iterable[str] | None = None
) -> dict[str, Failure]:
    """Images of a dataset whose files have another size than their sensors, by name.

    Args:
        dataset: its sensors, records and image files.
        names: of images to compare; None takes all.

    Raises:
        DatasetError: all files that are there.
    """
    return unlike_cameras(dataset_images(dataset, names), dataset.root)


def size_difference(image: CameraImage, found: Size) -> str | None:
    """Why an image cannot be what its camera took, and the way out.

    Args:
        image: with the size of its camera.
        found: (W, H) of the file.

    Returns:
        None where the sizes are the same.
    """
    if found == image.size:
        return None
    (width, height), (expected_width, expected_height) = found, image.size
    return (
        f"found {width} x {height} pixels, expected {expected_width} x "
        f"{expected_height} of {image.camera}; {_explanation(image, found)}"
    )


def _explanation(image: CameraImage, found: Size) -> str:
    """What probably happened to the file, and the way out."""
    turned = (found[1], found[0])
    if turned == image.size and (orientation := _orientation(image.path)):
        return (
            f"the file is stored on its side, and its EXIF orientation {orientation} "
            "is not applied to pixels: store it upright without the tag, or give a "
            "camera of the pixels as stored"
        )
    if turned == image.size:
        return "turned by 90 degrees after calibration: turn it back"
    ratio = _common_ratio(found, image.size)
    if ratio is not None:
        return (
            f"resized by {ratio:.4g} after calibration: scale size, focal lengths and "
            "principal point of the camera by it, or give the images in full size"
        )
    ratio = _common_ratio(turned, image.size)
    if ratio is not None:
        return (
            f"turned by 90 degrees and resized by {ratio:.4g} after calibration: give "
            "the images as they were calibrated"
        )
    return "cropped, or of another camera: correct the camera, or the record"


def _common_ratio(found: Size, size: Size) -> float | None:
    """The one factor of both sides, up to a pixel of rounding; None for two."""
    ratio = max(found) / max(size)
    fits = all(abs(a - ratio * b) <= 1 for a, b in zip(found, size))
    return ratio if fits else None


def _orientation(path: Path) -> int | None:
    """EXIF's orientation where it turns an image on its side, else None."""
    try:
        orientation = image_orientation(path)
    except ImageError:
        return None
    return orientation if orientation in TRANSPOSED else None


def _size_or_none(image: CameraImage) -> Size | None:
    try:
        return image_size(image.path)
    except ImageError:
        return None
