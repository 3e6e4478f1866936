"""EXIF's orientation as a quarter turn, and whether the image is stored mirrored."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from r2d2_kapture.coordinates import Turn
from r2d2_kapture.io.images.decoding import image_orientation

TURN_OF_TAG: dict[int, Turn] = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
"""Degrees clockwise that put up what is up; other tags stand for none."""
MIRRORED = frozenset({2, 4, 5, 7})


class Orientation(NamedTuple):
    """How viewers show an image, by its EXIF tag.

    Attributes:
        turn: degrees clockwise that put up what is up.
        mirrored: whether they mirror it too, left to right.
    """

    turn: Turn
    mirrored: bool


def exif_orientation(path: Path) -> Orientation:
    """What the EXIF or TIFF tag of an image says; without one, it is upright.

    Raises:
        ImageError: as ``image_size``.
    """
    tag = image_orientation(path)
    return Orientation(turn=TURN_OF_TAG.get(tag, 0), mirrored=tag in MIRRORED)
