"""Image files: find them, read their size, decode them to RGB as stored.

The pixels are those that COLMAP and kapture see: an orientation tag, EXIF or TIFF, is
never applied. Every function here may be called from several threads at once.
"""

from __future__ import annotations

import glob
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.lists import names_in, read_list_lines

RGBArray = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "PPM", "BMP", "GIF", "JPEG2000")
PICTURE_SUFFIXES = (".keypoints.png", ".maps.png")
"""Endings of what kapture_r2d2_view draws; folders and patterns leave them out."""

SUFFIXES = frozenset(
    ".jpg .jpeg .png .ppm .pgm .tif .tiff .bmp .webp .gif .jp2".split()
)
MAX_PIXELS = 500_000_000
"""Pixels above which a header is taken for an attack on the memory."""

# Pillow has no common root: what its plugins raise depends on where the file is broken
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

STORED_FROM_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def read_rgb(path: Path) -> RGBArray:
    """Decode an image to 8-bit RGB, its pixels as stored, no orientation tag applied.

    Alpha is dropped, not blended; 16-bit grey values are divided by 257 and rounded; an
    animation or a multi-page file gives its first frame.

    Returns:
        (H, W, 3) uint8, C-contiguous and writable.

    Raises:
        ImageError: the file is missing, empty, truncated, broken, of an unknown format,
            above 500 megapixels, or holds grey values of more than 16 bits.
    """
    with _opened(path) as image:
        if isinstance(image, TiffImageFile):
            return _rgb(_load_tiff_as_stored(image), path)
        image.load()
        return _rgb(image, path)


def image_size(path: Path) -> tuple[int, int]:
    """Read the (W, H) in pixels of an image as stored, from the header only.

    Raises:
        ImageError: the file is missing, empty, of an unknown format, above 500
            megapixels, or its header is broken.
    """
    with _opened(path) as image:
        return _stored_size(image)


def image_orientation(path: Path) -> int:
    """Read the orientation that a tag, EXIF or TIFF, gives: 1 to 8; 1 without one.

    Raises:
        ImageError: as ``image_size``.
    """
    with _opened(path) as image:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def list_images(patterns: Sequence[str]) -> list[Path]:
    """List the images that the arguments of a command line name.

    Args:
        patterns: each one an image; a folder, searched recursively; a glob pattern,
            where ``**`` is recursive; or a ``.txt`` file of one path a line,
            relative to the current folder or else to its own, with blank lines and
            lines starting with ``#`` skipped. A name that exists is no glob pattern.

    Returns:
        Paths in the order of the patterns, sorted within a folder or a glob pattern, a
        file named twice only once. A plain path is kept even if it does not exist, so
        that it is reported as a failed image and the others go on.

    Raises:
        DatasetError: a folder, glob pattern or list gives no image, or a list cannot be
            read.
    """
    paths = [path for pattern in patterns for path in _paths_of(pattern)]
    first_of_file: dict[str, Path] = {}
    for path in paths:
        first_of_file.setdefault(os.path.realpath(path), path)
    return list(first_of_file.values())


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Parse the header; whatever breaks before the caller is done is an ImageError."""
    try:
        check_file(path)
        with path.open("rb") as file:
            image = _identify(file)
            if image is None:
                raise ImageError(
                    f"{path}: found no known image format, expected one of "
                    f"{', '.join(FORMATS)}"
                )
            width, height = _stored_size(image)
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{path}: found {width} x {height} pixels, expected at most "
                    f"{MAX_PIXELS // 10**6} megapixels"
                )
            yield image
    except DECODING_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: found an unreadable or broken image ({reason}), expected a "
            "complete one"
        ) from error


def check_file(path: Path) -> None:
    """Refuse what is no file, or an empty one.

    Raises:
        ImageError: naming it.
    """
    if path.is_dir():
        raise ImageError(f"{path}: found a folder, expected an image file")
    if not path.is_file():
        raise ImageError(f"{path}: found no such file, expected an image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: found an empty file, expected an image")


def _identify(file: IO[bytes]) -> ImageFile | None:
    # Image.open would warn above 89 and fail above 179 megapixels by a global limit
    Image.init()
    prefix = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(prefix) is True:
            file.seek(0)
            # without the name Pillow does not map the file, whose truncation is fatal
            return factory(file, "")
    return None


def _stored_size(image: ImageFile) -> tuple[int, int]:
    if isinstance(image, TiffImageFile):
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def _load_tiff_as_stored(image: TiffImageFile) -> Image.Image:
    """Decode a TIFF and undo the orientation that Pillow applies to it, unasked."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # with the buffer there, Pillow does not compare its size to the global limit
    size = _stored_size(image)
    image.im = Image.new(image.mode, size).im
    # Pillow leaves black what no strip or tile covers
    last_rows = [extents[3] for _, extents, *_ in image.tile if extents]
    if max(last_rows, default=0) < size[1]:
        raise ValueError("its strips end before its last row")
    image.load()
    if orientation not in STORED_FROM_UPRIGHT:
        return image
    return image.transpose(STORED_FROM_UPRIGHT[orientation])


def _rgb(image: Image.Image, path: Path) -> RGBArray:
    if image.mode == "F":
        raise ImageError(
            f"{path}: found grey values in floating point, expected 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return _rgb_from_16_bits(np.array(image), path)
    if image.mode == "RGB":
        return np.array(image)
    # Pillow warns about transparency that RGB cannot hold
    image.info.pop("transparency", None)
    return np.array(image.convert("RGB"))


def _rgb_from_16_bits(grey: npt.NDArray[np.integer], path: Path) -> RGBArray:
    # Pillow's own conversion clips at 255
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ImageError(
            f"{path}: found grey values from {low} to {high}, expected 0 to 65535"
        )
    eight_bits = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(eight_bits[:, :, None], 3, axis=2)


def _paths_of(pattern: str) -> list[Path]:
    path = Path(pattern)
    if os.path.isdir(pattern):
        return _matching(path, "**/*", pattern)
    if path.suffix.lower() == ".txt":
        return _listed(path)
    if os.path.exists(pattern) or glob.escape(pattern) == pattern:
        return [path]
    # the part that exists is literal, whatever characters it holds
    folder = next(filter(os.path.isdir, path.parents), Path())
    return _matching(folder, str(path.relative_to(folder)), pattern)


def _matching(folder: Path, glob_pattern: str, named: str) -> list[Path]:
    names = glob.iglob(glob_pattern, root_dir=folder, recursive=True)
    paths = sorted(folder / name for name in names)
    images = [
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES
        and not path.name.endswith(PICTURE_SUFFIXES)
        and path.is_file()
    ]
    if not images:
        raise DatasetError(
            f"{named}: found no image, expected files of type "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    return images


def _listed(list_file: Path) -> list[Path]:
    lines = read_list_lines(list_file, "a list of images")
    paths = [
        _located(line, list_file.parent)
        for line in lines
        if line.strip() and not line.startswith("#")
    ]
    if not paths:
        raise DatasetError(f"{list_file}: found no path, expected one image a line")
    return paths


def _located(line: str, folder: Path) -> Path:
    """The file of a line; a camera may follow its name, as in Aachen's lists."""
    paths = [root / name for name in names_in(line) for root in (Path(), folder)]
    return next(filter(os.path.exists, paths), folder / line.strip())
