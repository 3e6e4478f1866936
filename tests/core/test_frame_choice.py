"""Sharpness and motion of frames, and windows of neighbours."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from r2d2_kapture.core.frame_choice import (
    motion,
    outline,
    sharpness,
    with_neighbours,
)


def texture(width: int, height: int, grain: int, seed: int = 0) -> Image.Image:
    """Smooth noise with structures of ``grain`` pixels."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (height // grain + 2, width // grain + 2), np.uint8)
    whole = Image.fromarray(cells).resize(
        ((width // grain + 2) * grain, (height // grain + 2) * grain), Image.BICUBIC
    )
    return whole.crop((0, 0, width, height))


@pytest.mark.parametrize("seed", range(3))
def test_blur_lowers_sharpness_whatever_is_shown(seed: int) -> None:
    fine = texture(320, 240, 2, seed)
    coarse = texture(320, 240, 6, seed)
    for image in (fine, coarse):
        values = [
            sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(radius))))
            for radius in (0, 1, 2)
        ]
        assert values == sorted(values, reverse=True)
        assert values[2] < 0.75 * values[0]


def test_blur_along_one_direction_counts() -> None:
    pixels = np.asarray(texture(320, 240, 2), np.float32)
    for axis in (0, 1):
        shaken = np.mean([np.roll(pixels, k, axis=axis) for k in range(9)], axis=0)
        assert sharpness(shaken.astype(np.uint8)) < 0.5 * sharpness(
            pixels.astype(np.uint8)
        )


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 200), (64, 64)])
def test_nothing_to_see_is_neither_sharp_nor_moving(size: tuple[int, int]) -> None:
    gray = np.full(size, 90, np.uint8)
    assert sharpness(gray) == 0
    assert motion(outline(gray), outline(gray)) == 0


@pytest.mark.parametrize("shift", [(0, 0), (16, 0), (0, -12), (24, 32), (-60, 10)])
def test_motion_is_the_shift_in_percent(shift: tuple[int, int]) -> None:
    whole = np.asarray(texture(1200, 1000, 24))
    x, y = shift
    before = whole[100:820, 100:1060]
    after = whole[100 + y : 820 + y, 100 + x : 1060 + x]
    found = motion(outline(before), outline(after))
    # an outline has a third of the pixels, and displacements are whole ones
    assert found == pytest.approx(100 * np.hypot(x, y) / 960, abs=100 * 2.2 / 960)


def test_noise_and_light_are_no_motion() -> None:
    rng = np.random.default_rng(0)
    whole = np.asarray(texture(960, 720, 24), np.float64)
    noisy = [whole * gain + rng.normal(0, 6, whole.shape) for gain in (0.7, 0.9)]
    first, second = (image.clip(0, 255).astype(np.uint8) for image in noisy)
    # a pixel of an outline at most
    assert motion(outline(first), outline(second)) < 100 / 300


def test_frames_of_other_sizes_moved() -> None:
    assert motion(outline(np.zeros((8, 9), np.uint8)), np.zeros((9, 8))) == np.inf


@pytest.mark.parametrize("reach", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 9])
def test_neighbours_are_those_within_reach(count: int, reach: int) -> None:
    found = list(with_neighbours(range(count), reach))
    assert found == [
        (i, list(range(max(0, i - reach), min(count, i + reach + 1))))
        for i in range(count)
    ]
