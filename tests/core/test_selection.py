"""Maxima, thresholds, sub-pixel fit and ranking, against brute force and formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.core.selection import (
    Candidates,
    best_first,
    concatenate,
    local_maxima,
    no_candidates,
    sample_descriptors,
    subpixel_offsets,
)


def random_map(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, generator=generator)


def maxima(repeatability: Tensor) -> list[tuple[int, int]]:
    """Maxima without thresholds, as (row, column)."""
    rows, columns = local_maxima(
        torch.ones_like(repeatability),
        repeatability,
        reliability_thr=0,
        repeatability_thr=0,
    )
    return list(zip(rows.tolist(), columns.tolist()))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 23)])
@pytest.mark.parametrize("levels", [1000, 4])  # with four levels there are many ties
def test_local_maxima_equal_a_loop(size: tuple[int, int], levels: int) -> None:
    height, width = size
    repeatability = (random_map(height, width) * levels).round() / levels
    reliability = random_map(height, width, seed=1)
    expected = []
    for row in range(height):
        for column in range(width):
            value = repeatability[row, column]
            around = repeatability[
                max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2
            ]
            if (
                value >= around.max()
                and value >= 0.5
                and reliability[row, column] >= 0.25
            ):
                expected.append((row, column))
    rows, columns = local_maxima(
        reliability, repeatability, reliability_thr=0.25, repeatability_thr=0.5
    )
    assert list(zip(rows.tolist(), columns.tolist())) == expected


def test_maxima_at_plateaus_borders_and_corners() -> None:
    """As published: the maximum is one that no neighbour exceeds."""
    """As published: the maximum is one that no neighbour exceeds."""
    level = torch.zeros(5, 6)
    level[2, 2:4] = 0.5
    assert maxima(level) == [
        (r, c)
        for r in range(5)
        for c in range(6)
        if (r, c) in ((2, 2), (2, 3)) or r in (0, 4) or c in (0, 5)
    ]
    level = torch.zeros(5, 6) + torch.arange(6) * 0.01 + torch.arange(5)[:, None] * 0.02
    assert maxima(level) == [(4, 5)]
    assert maxima(level.flip(0, 1)) == [(0, 0)]


def test_thresholds_include_their_value() -> None:
    level = torch.full((1, 1), 0.5)
    for reliability_thr, repeatability_thr, count in (
        (0.5, 0.5, 1),
        (0.51, 0.5, 0),
        (0.5, 0.51, 0),
    ):
        rows, _ = local_maxima(
            level,
            level,
            reliability_thr=reliability_thr,
            repeatability_thr=repeatability_thr,
        )
        assert len(rows) == count


def bump(center_x: float, center_y: float, curvature: tuple[float, ...]) -> Tensor:
    """15x15 map whose odds q / (1 - q) are a paraboloid with a known peak."""
    y, x = torch.meshgrid(torch.arange(15.0), torch.arange(15.0), indexing="ij")
    dx, dy = x - center_x, y - center_y
    xx, xy, yy = curvature
    odds = (4 - (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)).clamp_min(0)
    return odds / (1 + odds)


def fit(level: Tensor, row: int, column: int) -> list[float]:
    found = subpixel_offsets(level, torch.tensor([row]), torch.tensor([column]))
    assert found.shape == (1, 2)
    return [float(value) for value in found[0]]


OFFSETS = [(0.0, 0.0), (0.3, -0.2), (-0.45, 0.45), (0.1, 0.49), (-0.25, 0.0)]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(
    "curvature", [(0.1, 0.0, 0.1), (0.2, 0.05, 0.1), (0.05, -0.04, 0.2)]
)
def test_subpixel_fit_is_exact_on_a_paraboloid(
    offset: tuple[float, float], curvature: tuple[float, float, float]
) -> None:
    level = bump(7 + offset[0], 7 + offset[1], curvature)
    assert fit(level, 7, 7) == pytest.approx(offset, abs=1e-3)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0])
def test_subpixel_fit_finds_the_peak_of_a_gaussian(
    offset: tuple[float, float], sigma: float
) -> None:
    y, x = torch.meshgrid(torch.arange(15.0), torch.arange(15.0), indexing="ij")
    squared = (x - 7 - offset[0]) ** 2 + (y - 7 - offset[1]) ** 2
    level = 0.8 * torch.exp(-squared / (2 * sigma * sigma))
    assert fit(level, 7, 7) == pytest.approx(offset, abs=0.05)


def test_axes_are_x_then_y() -> None:
    right = fit(bump(7.4, 7.0, (0.1, 0.0, 0.1)), 7, 7)
    below = fit(bump(7.0, 7.4, (0.1, 0.0, 0.1)), 7, 7)
    assert right[0] > 0.3 and abs(right[1]) < 0.01
    assert below[1] > 0.3 and abs(below[0]) < 0.01


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.7, 0.9, 0.999, 1.0])
def test_flat_areas_are_not_moved(value: float) -> None:
    level = torch.full((6, 7), value)
    rows, columns = (level >= 0).nonzero(as_tuple=True)
    assert torch.equal(subpixel_offsets(level, rows, columns), torch.zeros(42, 2))


@pytest.mark.parametrize("ridge", [[0.2, 0.6, 0.2], [0.6, 0.2, 0.6]])
def test_ridges_and_valleys_are_not_moved_along(ridge: list[float]) -> None:
    level = torch.tensor(ridge)[:, None].expand(3, 9).repeat(3, 1)[2:7]
    row = int(level[:, 0].argmax())
    assert abs(fit(level, row, 4)[0]) <= 1e-4


@pytest.mark.parametrize("kind", ["noise", "zeros and ones", "tiny", "one pixel"])
def test_offsets_are_finite_and_within_half_a_pixel(kind: str) -> None:
    size = {"tiny": (2, 3), "one pixel": (1, 1)}.get(kind, (40, 50))
    level = random_map(*size)
    if kind == "zeros and ones":
        level = level.round()
    rows, columns = (level >= 0).nonzero(as_tuple=True)
    offsets = subpixel_offsets(level, rows, columns)
    assert offsets.shape == (level.numel(), 2)
    assert bool(torch.isfinite(offsets).all())
    assert float(offsets.abs().max()) <= 0.5


def test_no_positions_give_no_offsets() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert subpixel_offsets(random_map(4, 4), none, none).shape == (0, 2)
    assert sample_descriptors(torch.rand(4, 4, 3), none, none).shape == (0, 3)
    doubled = sample_descriptors(torch.rand(4, 4, 3), none, none, doubled=True)
    assert doubled.shape == (0, 3)


def linear_features(height: int, width: int) -> Tensor:
    """(H, W, 3): x, y and a constant, which bilinear weights reproduce."""
    y, x = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


@pytest.mark.parametrize("size", [(7, 9), (1, 9), (7, 1), (1, 1), (2, 2)])
def test_sampling_is_exact_on_a_linear_field(size: tuple[int, int]) -> None:
    height, width = size
    features = linear_features(height, width)
    steps = torch.linspace(0, 1, 23)
    y, x = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    x, y = x * (width - 1), y * (height - 1)
    found = sample_descriptors(features, x, y)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(x)))
    torch.testing.assert_close(found[:, 0] / found[:, 2], x, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 1] / found[:, 2], y, rtol=0, atol=1e-5)


def test_sampling_beyond_the_border_continues_it() -> None:
    features = linear_features(5, 6)
    x, y = torch.tensor([-0.5, 5.5, 2.25]), torch.tensor([-0.5, 4.5, 4.4])
    inside = sample_descriptors(features, x.clamp(0, 5), y.clamp(0, 4))
    torch.testing.assert_close(sample_descriptors(features, x, y), inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampling_at_whole_pixels_reads_them(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 6, 8, generator=generator).to(dtype)
    rows, columns = (features[..., 0] == features[..., 0]).nonzero(as_tuple=True)
    sampled = sample_descriptors(features, columns.float(), rows.float())
    assert sampled.dtype == torch.float32
    expected = F.normalize(features.float(), dim=-1)
    torch.testing.assert_close(sampled, expected[rows, columns], rtol=0, atol=0)


@pytest.mark.parametrize("size", [(5, 6), (1, 6), (5, 1), (1, 1), (2, 2)])
def test_sampling_a_doubled_map_is_that_of_the_enlarged_one(
    size: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(*size, 8, generator=generator)
    planes = features.permute(2, 0, 1)[None]
    enlarged = F.interpolate(planes, scale_factor=2, mode="bilinear")[0]
    x, y = (
        torch.cat([torch.arange(-1.0, 2 * n + 1), torch.rand(9, generator=generator)])
        for n in reversed(size)
    )
    x, y = (grid.flatten() for grid in torch.meshgrid(x, y, indexing="ij"))
    torch.testing.assert_close(
        sample_descriptors(features, x, y, doubled=True),
        sample_descriptors(enlarged.permute(1, 2, 0), x, y),
        rtol=0,
        atol=1e-5,
    )


def test_best_first_breaks_ties_by_place() -> None:
    scores = torch.tensor([0.5, 0.9, 0.5, 0.1, 0.9])
    order = torch.tensor([7, 9, 3, 1, 2])
    assert best_first(scores, order, 0).tolist() == [4, 1, 2, 0, 3]
    assert best_first(scores, order, 3).tolist() == [4, 1, 2]
    assert best_first(scores, order, 99).tolist() == [4, 1, 2, 0, 3]
    assert best_first(scores[:0], order[:0], 3).tolist() == []


def test_best_first_does_not_depend_on_the_order_of_arrival() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(20, (500,), generator=generator) / 20
    order = torch.randperm(500, generator=generator)
    chosen = order[best_first(scores, order, 50)]
    shuffle = torch.randperm(500, generator=generator)
    again = order[shuffle][best_first(scores[shuffle], order[shuffle], 50)]
    assert torch.equal(chosen, again)


def candidates(*places: int) -> Candidates:
    order = torch.tensor(places, dtype=torch.int64)
    value = order.float()
    return Candidates(
        xy=torch.stack([value, -value], dim=1),
        scales=value + 0.25,
        scores=value / 100,
        descriptors=value[:, None] + torch.arange(3),
        order=order,
    )


def assert_equal(found: Candidates, expected: Candidates) -> None:
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name


def test_candidates_are_taken_and_joined_in_order() -> None:
    assert_equal(candidates(5, 6, 7).take(torch.tensor([2, 0, 2])), candidates(7, 5, 7))
    joined = concatenate([candidates(1), candidates(), candidates(3, 2)])
    assert_equal(joined, candidates(1, 3, 2))
    assert len(joined) == 3
    none = no_candidates(3, torch.device("cpu"))
    assert len(none) == 0
    assert_equal(concatenate([none, candidates(4)]), candidates(4))
    assert_equal(none.take(torch.zeros(0, dtype=torch.int64)), none)
