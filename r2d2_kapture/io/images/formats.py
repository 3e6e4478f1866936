"""Formats of images: those that are read, and those that plainly are pictures too."""

from __future__ import annotations

import functools
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, features
from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "PPM", "BMP", "GIF", "JPEG2000", "AVIF")
"""By Pillow's names, in the order in which they are tried; HEIF comes after them."""

HEIF_PACKAGE = "pillow_heif"
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
AVIF_SUFFIXES = frozenset({".avif"})
SUFFIXES = (
    frozenset(
        ".jpg .jpeg .jpe .jfif .mpo .png .ppm .pgm .pbm .pnm .tif .tiff .bmp .dib "
        ".webp .gif .jp2 .j2k .jpx".split()
    )
    | AVIF_SUFFIXES
    | HEIF_SUFFIXES
)
"""Endings of image files, in lower case."""

UNREAD: dict[str, frozenset[str]] = {
    "raw camera files, which are not supported": frozenset(
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw "
        ".nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f".split()
    ),
    "videos": frozenset(
        ".3gp .avi .insv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv".split()
    ),
    "images of an unsupported format": frozenset(
        ".exr .hdr .jxl .jxr .pfm .psd .svg .tga .xcf".split()
    ),
}
"""What is a picture by its ending and cannot be read, by what it is."""

SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  \r\n\x87\n",
)
HEIF_BRANDS = frozenset(
    b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split(),
)
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEADER_BYTES = 64


def identify(file: IO[bytes]) -> ImageFile | None:
    """Parse the header of an image by its content; None where no format fits.

    Pillow's registry is left alone: pillow-heif's class is used without it.

    Raises:
        Exception: of many kinds, see images.DECODING_ERRORS: the header is broken.
    """
    # Image.open would warn above 89 and fail above 179 megapixels by a global limit
    Image.init()
    header = file.read(HEADER_BYTES)
    file.seek(0)
    if is_heif(header):
        if not reads_heif():
            return None
        opened: ImageFile = importlib.import_module(HEIF_PACKAGE).HeifImageFile(file)
        return opened
    for name in FORMATS:
        # an older Pillow may lack one; text in place of True says what is missing
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and (accept is None or accept(header[:16]) is True):
            # without the name Pillow does not map the file, whose truncation is fatal
            return factory(file, "")
    return None


def is_heif(header: bytes) -> bool:
    """Whether a file that begins so is HEIF (HEIC), and not AVIF."""
    brands = _brands(header)
    return not brands.isdisjoint(HEIF_BRANDS) and brands.isdisjoint(AVIF_BRANDS)


def reads_heif() -> bool:
    """Whether pillow-heif is installed."""
    try:
        return find_spec(HEIF_PACKAGE) is not None
    except ValueError:  # a module that was set to None
        return False


@functools.cache
def reads_avif() -> bool:
    """Whether the Pillow that is installed reads AVIF."""
    return bool(features.check("avif"))


def kind_of_unread(path: Path) -> str | None:
    """What a file is that is a picture, by its ending or its content, and not read.

    Returns:
        A plural, such as ``videos``; None for an image that is read, and for what is
        no picture.
    """
    suffix = path.suffix.lower()
    if suffix in HEIF_SUFFIXES and not reads_heif():
        return "HEIF pictures, which pip install pillow-heif makes readable"
    if suffix in AVIF_SUFFIXES and not reads_avif():
        return "AVIF pictures, which pip install -U pillow makes readable"
    if suffix in SUFFIXES:
        return None
    for kind, suffixes in UNREAD.items():
        if suffix in suffixes:
            return kind
    return "image files whose names have no image suffix" if _is_picture(path) else None


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError:
        return False
    return (
        header.startswith(SIGNATURES)
        or (header[:4] == b"RIFF" and header[8:12] == b"WEBP")
        or not _brands(header).isdisjoint(HEIF_BRANDS | AVIF_BRANDS)
    )


def _brands(header: bytes) -> set[bytes]:
    """The brands of an ISO base media file; none of another file."""
    if header[4:8] != b"ftyp":
        return set()
    body = header[8 : int.from_bytes(header[:4], "big")]
    return {body[i : i + 4] for i in range(0, len(body), 4)}
