"""EXIF's orientation as a turn: what is up in the picture is up after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from r2d2_kapture.core.quarter_turns import turned
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.images.orientation import exif_orientation

ORIENTATION = 274


def save_tagged(path: Path, tag: int | None) -> Path:
    pixels = np.random.default_rng(3).integers(0, 255, (5, 9, 3), np.uint8)
    exif = Image.Exif()
    if tag is not None:
        exif[ORIENTATION] = tag
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_the_turn_shows_an_image_as_viewers_do(
    tmp_path: Path, suffix: str, tag: int
) -> None:
    png = save_tagged(tmp_path / "a.png", tag)
    with Image.open(png) as image:
        shown = np.array(ImageOps.exif_transpose(image))
    path = save_tagged(tmp_path / f"b.{suffix}", tag)
    turn, mirrored = exif_orientation(path)
    seen = turned(read_rgb(path), turn)
    np.testing.assert_array_equal(seen[:, ::-1] if mirrored else seen, shown)
    assert mirrored == (tag in (2, 4, 5, 7))


@pytest.mark.parametrize("tag", [None, 0, 9])
def test_other_tags_are_none(tmp_path: Path, tag: int | None) -> None:
    assert exif_orientation(save_tagged(tmp_path / "a.jpg", tag)) == (0, False)
