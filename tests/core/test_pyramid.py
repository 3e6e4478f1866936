"""The planned scales, and the pixels of the levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from r2d2_kapture.config.extract import PyramidConfig
from r2d2_kapture.config.presets import EXTRACTION, read_preset
from r2d2_kapture.coordinates import ResizeMap, image_from_level
from r2d2_kapture.core.pyramid import (
    Level,
    iterate_levels,
    normalize_rgb,
    plan_levels,
)


def searched(height: int, width: int, **limits: Any) -> list[tuple[int, int]]:
    """(height, width) of the levels where keypoints are wanted."""
    levels = plan_levels(height, width, PyramidConfig(**limits))
    return [(level.height, level.width) for level in levels if level.searched]


@pytest.mark.parametrize(
    "height, width, sizes",
    [
        (  # from the image itself down to 256 pixels: factors 2^(-i/4)
            768,
            1024,
            [
                (768, 1024),
                (646, 861),
                (543, 724),
                (457, 609),
                (384, 512),
                (323, 431),
                (272, 362),
                (228, 304),
                (192, 256),
            ],
        ),
        (
            480,
            640,
            [(480, 640), (404, 538), (339, 453), (285, 381), (240, 320), (202, 269)],
        ),
        (  # larger than 1024: the first scale below it is 2^(-3/4)
            1200,
            1600,
            [
                (714, 951),
                (600, 800),
                (505, 673),
                (424, 566),
                (357, 476),
                (300, 400),
                (252, 336),
                (212, 283),
            ],
        ),
        (257, 300, [(257, 300)]),  # the next, 252 pixels wide, is too small
        (200, 100, [(200, 100)]),  # below the minimum: its own size
        (1, 1, [(1, 1)]),
        (2, 3, [(2, 3)]),
        (
            56,
            4000,
            [
                (14, 1000),
                (12, 841),
                (10, 707),
                (8, 595),
                (7, 500),
                (6, 420),
                (5, 354),
                (4, 297),
            ],
        ),
    ],
)
def test_default_levels(height: int, width: int, sizes: list[tuple[int, int]]) -> None:
    assert searched(height, width) == sizes


def test_turbo_searches_less_than_half_of_what_fast_does() -> None:
    pixels = {}
    for name in ("fast", "turbo"):
        limits = read_preset(name, EXTRACTION)
        del limits["top_k"]
        sizes = searched(1200, 1600, **limits)
        pixels[name] = sum(height * width for height, width in sizes)
    assert 0 < pixels["turbo"] < pixels["fast"] / 2


HALF_OF_ANY_SIZE = {"max_size": 9999, "min_size": 0, "min_scale": 0.5}


@pytest.mark.parametrize(
    "size, limits, sizes",
    [
        (
            (1000, 4000),
            HALF_OF_ANY_SIZE,
            [(1000, 4000), (841, 3364), (707, 2828), (595, 2378), (500, 2000)],
        ),
        (
            (1000, 1500),
            {"scale_f": 2, "max_scale": 0.5, "min_size": 300},
            [(500, 750), (250, 375)],
        ),
        # a narrow range falls back to the largest allowed scale
        ((1000, 4000), {"min_size": 1020, "max_size": 1024}, [(256, 1024)]),
        (
            (1000, 4000),
            {"min_scale": 0.9, "max_scale": 0.95, "max_size": 9999},
            [(950, 3800)],
        ),
        ((1000, 4000), {"min_scale": 0.6, "max_scale": 0.7}, [(256, 1024)]),
        # a small image is not searched above it
        ((100, 120), {"max_scale": 0.5}, [(50, 60)]),
        ((1, 1), {"max_scale": 0.01}, [(1, 1)]),
    ],
)
def test_limits_of_scale_and_size(
    size: tuple[int, int], limits: dict[str, Any], sizes: list[tuple[int, int]]
) -> None:
    assert searched(*size, **limits) == sizes


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (37, 41), (2000, 3000)])
@pytest.mark.parametrize("limits", [{}, {"min_size": 0}, {"max_scale": 0.3}])
def test_levels_shrink_from_the_image(
    size: tuple[int, int], limits: dict[str, Any]
) -> None:
    levels = plan_levels(*size, PyramidConfig(**limits))
    assert (levels[0].height, levels[0].width, levels[0].scale) == (*size, 1.0)
    assert any(level.searched for level in levels)
    for above, level in zip(levels, levels[1:]):
        assert level.scale < above.scale
        assert 1 <= level.height <= above.height
        assert 1 <= level.width <= above.width
    for level in levels:
        assert level.height == max(1, round(size[0] * level.scale))
        assert level.width == max(1, round(size[1] * level.scale))


def levels_of(*sizes: tuple[int, int, bool]) -> tuple[Level, ...]:
    return tuple(
        Level(scale=1 / (i + 1), height=height, width=width, searched=wanted)
        for i, (height, width, wanted) in enumerate(sizes)
    )


def test_published_levels_are_made_from_the_one_above() -> None:
    image = torch.rand(2, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    plan = levels_of((60, 80, False), (45, 60, True), (33, 44, False), (20, 27, True))
    expected, above = [], image
    for level in plan:
        above = F.interpolate(
            above, (level.height, level.width), mode="bilinear", align_corners=False
        )
        if level.searched:
            expected.append(above)
    found = list(iterate_levels(image, plan, "published"))
    assert [level for level, _ in found] == [plan[1], plan[3]]
    for (_, pixels), wanted in zip(found, expected):
        torch.testing.assert_close(pixels, wanted)


def test_corrected_levels_do_not_depend_on_those_above() -> None:
    image = torch.rand(1, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    chain = levels_of((60, 80, True), (45, 60, True), (20, 27, True))
    direct = levels_of((60, 80, False), (20, 27, True))
    last = list(iterate_levels(image, chain, "corrected"))[-1][1]
    ((_, alone),) = iterate_levels(image, direct, "corrected")
    torch.testing.assert_close(last, alone, rtol=0, atol=0)


def test_the_first_level_is_the_image() -> None:
    image = torch.rand(1, 3, 7, 9)
    coordinates: tuple[ResizeMap, ...] = ("corrected", "published")
    for resize in coordinates:
        ((_, pixels),) = iterate_levels(image, levels_of((7, 9, True)), resize)
        assert torch.equal(pixels, image)


@pytest.mark.parametrize("size", [(30, 40), (25, 31), (51, 67)])
def test_corrected_levels_lie_where_the_corrected_map_says(
    size: tuple[int, int],
) -> None:
    """Pixels that hold their own x (or y) still do on a level, away from borders."""
    height, width = 60, 80
    y, x = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    image = torch.stack([x, y, torch.ones_like(x)])[None]
    plan = levels_of((height, width, False), (*size, True))
    ((_, level),) = iterate_levels(image, plan, "corrected")
    columns = image_from_level(
        torch.arange(float(size[1])), size[1], width, "corrected"
    )
    rows = image_from_level(torch.arange(float(size[0])), size[0], height, "corrected")
    for found, expected in ((level[0, 0, 0], columns), (level[0, 1, :, 0], rows)):
        error = (found - expected)[2:-2]
        assert float(error.abs().max()) < 0.1  # a sampled triangle is not quite linear
        assert abs(float(error.mean())) < 0.01  # the published map is off by 0.1 to 0.8


def test_corrected_levels_are_low_pass_filtered() -> None:
    """Stripes turn grey, though the nearest pixels of every sample are white."""
    image = torch.zeros(1, 3, 64, 64)
    image[..., 1::4] = 1
    image[..., 2::4] = 1
    plan = levels_of((64, 64, False), (16, 16, True))
    ((_, level),) = iterate_levels(image, plan, "corrected")
    torch.testing.assert_close(
        level[..., 2:-2], torch.full((1, 3, 16, 12), 0.5), rtol=0, atol=0.01
    )


def test_normalisation_of_known_colours() -> None:
    pixels = torch.tensor([[[[0, 255, 128]]]], dtype=torch.uint8)
    found = normalize_rgb(pixels)
    assert found.shape == (1, 3, 1, 1)
    expected = [
        (0 - 0.485) / 0.229,
        (1 - 0.456) / 0.224,
        (128 / 255 - 0.406) / 0.225,
    ]
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert pixels.flatten().tolist() == [0, 255, 128]  # not changed in place
