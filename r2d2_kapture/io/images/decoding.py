"""Image files: read their size, decode them to RGB as stored.

The pixels are those that COLMAP and kapture see: an orientation tag, EXIF or TIFF, is
never applied, nor the rotation of an AVIF container. That of HEIF is: libheif decodes
so, for every program alike, and its EXIF tag is for information. Every function here
may be called from several threads at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.formats import FORMATS, HEADER_BYTES, identify, is_heif

RGBArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

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
        return _rgb(_loaded(image), path)


def read_reduced(path: Path, side: int) -> RGBArray:
    """Decode an image for a picture of ``side`` pixels a side, as ``read_rgb`` does.

    A JPEG is decoded at the least fraction of its size, down to an eighth, of which no
    side is shorter: up to eight times faster, and slightly softer.

    Raises:
        ImageError: as ``read_rgb``.
    """
    with _opened(path) as image:
        image.draft(None, (side, side))
        return _rgb(_loaded(image), path)


def rgb_of_picture(image: Image.Image) -> RGBArray:
    """8-bit RGB of an opened or drawn PIL image, as ``read_rgb`` converts it.

    Returns:
        (H, W, 3) uint8, C-contiguous and writable.

    Raises:
        ImageError: broken, or grey values of more than 16 bits.
    """
    name = getattr(image, "filename", "") or "PIL image"
    try:
        if isinstance(image, TiffImageFile) and image.fp is not None:
            return _rgb(_load_tiff_as_stored(image), name)
        image.load()
        return _rgb(image.copy(), name)
    except DECODING_ERRORS as error:
        raise _broken(name, error) from error


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


def exif_camera(path: Path) -> tuple[float | None, str]:
    """Read what EXIF says of the camera.

    Returns:
        The focal length in mm of 35 mm film, or None; maker, model and it in one.

    Raises:
        ImageError: as ``image_size``.
    """
    with _opened(path) as image:
        tags = image.getexif()
        details = tags.get_ifd(ExifTags.IFD.Exif)
        focal = float(details.get(ExifTags.Base.FocalLengthIn35mmFilm) or 0)
        maker, model = (tags.get(t) for t in (ExifTags.Base.Make, ExifTags.Base.Model))
        return focal if focal > 0 else None, f"{maker}-{model}-{focal:f}"


def gps_tags(path: Path) -> dict[int, Any]:
    """Read the GPS tags of EXIF data by their numbers; empty without any.

    Raises:
        ImageError: as ``image_size``, or the tags are broken.
    """
    with _opened(path) as image:
        return dict(image.getexif().get_ifd(ExifTags.IFD.GPSInfo))


def read_mask(path: Path) -> BoolArray:
    """Decode a mask: which pixels are to be kept, those that are not black.

    Returns:
        (H, W) bool; False where every colour is 0, whatever the alpha.

    Raises:
        ImageError: as read_rgb.
    """
    with _opened(path) as image:
        mask = _loaded(image)
        if mask.mode == "F" or mask.mode.startswith("I"):
            # 16-bit labels of 1, 2, 3 would be black in 8 bits
            return np.array(mask).astype(np.bool_)
        kept: BoolArray = _rgb(mask, path).max(axis=2).astype(np.bool_)
        return kept


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Parse the header; whatever breaks before the caller is done is an ImageError."""
    try:
        check_file(path)
        with path.open("rb") as file:
            image = identify(file)
            if image is None:
                raise ImageError(f"{path}: {_unknown(file)}")
            width, height = _stored_size(image)
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{path}: found {width} x {height} pixels, expected at most "
                    f"{MAX_PIXELS // 10**6} megapixels"
                )
            yield image
    except DECODING_ERRORS as error:
        raise _broken(path, error) from error


def _broken(name: Path | str, error: Exception) -> ImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(
        f"{name}: found an unreadable or broken image ({reason}), expected a complete "
        "one"
    )


def _unknown(file: IO[bytes]) -> str:
    file.seek(0)
    if is_heif(file.read(HEADER_BYTES)):
        return (
            "found a HEIF picture, which pillow-heif reads; pip install pillow-heif, "
            "or convert it"
        )
    return f"found no known image format, expected one of {', '.join(FORMATS)}, HEIF"


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


def _stored_size(image: ImageFile) -> tuple[int, int]:
    if isinstance(image, TiffImageFile):
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def _loaded(image: ImageFile) -> Image.Image:
    if isinstance(image, TiffImageFile):
        return _load_tiff_as_stored(image)
    image.load()
    return image


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


def _rgb(image: Image.Image, path: Path | str) -> RGBArray:
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


def _rgb_from_16_bits(grey: npt.NDArray[np.integer], path: Path | str) -> RGBArray:
    # Pillow's own conversion clips at 255
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ImageError(
            f"{path}: found grey values from {low} to {high}, expected 0 to 65535"
        )
    eight_bits = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(eight_bits[:, :, None], 3, axis=2)
