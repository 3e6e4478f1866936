"""Crops that overlap, and the positions of their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from r2d2_kapture.training.pairs import (
    Flow,
    Points,
    RawPair,
    RGBArray,
    TrainingPair,
    crop_pair,
    inside,
    pixel_grid,
)


@dataclass(frozen=True)
class CoordinateView:
    """A picture whose red is x modulo 256, and whose green is y modulo 256."""

    size: tuple[int, int]

    def crop(self, corner: tuple[int, int], side: int) -> RGBArray:
        left, top = corner
        assert 0 <= left <= self.size[0] - side and 0 <= top <= self.size[1] - side
        x, y = np.meshgrid(np.arange(left, left + side), np.arange(top, top + side))
        return (np.stack([x, y, 0 * x], axis=-1) % 256).astype(np.uint8)


def raw_pair(flow: Flow, size1=(250, 200), size2=(250, 200)) -> RawPair:
    return RawPair(
        name="pair", view1=CoordinateView(size1), view2=CoordinateView(size2), flow=flow
    )


def scaling(factor: float, shift: tuple[float, float] = (0, 0)) -> Flow:
    return lambda points: points * factor + shift


def corner_of(crop: RGBArray) -> np.ndarray:
    return crop[0, 0, :2].astype(np.float64)


def common_share(pair: TrainingPair) -> float:
    return float(np.isfinite(pair.aflow[..., 0]).mean())


@pytest.mark.parametrize("seed", range(5))
def test_positions_lead_to_the_pixels_of_the_other_crop(seed: int) -> None:
    flow = scaling(0.9, (4.25, -7.5))
    pair = crop_pair(raw_pair(flow), 64, np.random.default_rng(seed))
    assert pair is not None
    assert pair.image1.shape == pair.image2.shape == (64, 64, 3)
    assert pair.aflow.dtype == np.float32
    expected = flow(pair.image1[..., :2].reshape(-1, 2).astype(np.float64))
    found = pair.aflow.reshape(-1, 2) + corner_of(pair.image2)
    known = np.isfinite(found[:, 0])
    np.testing.assert_allclose(found[known], expected[known], atol=1e-4)


def test_what_falls_outside_of_the_second_crop_is_unknown() -> None:
    flow = scaling(1, (3, 2))
    pair = crop_pair(raw_pair(flow), 64, np.random.default_rng(0))
    assert pair is not None
    first = pair.image1[..., :2].reshape(-1, 2).astype(np.float64)
    within = inside(flow(first) - corner_of(pair.image2), (64, 64))
    assert 0 < within.sum() < within.size
    known = np.isfinite(pair.aflow).all(axis=-1).ravel()
    np.testing.assert_array_equal(known, within)
    # never one coordinate alone
    np.testing.assert_array_equal(np.isnan(pair.aflow).any(axis=-1).ravel(), ~known)


def test_hidden_pixels_stay_unknown() -> None:
    def half_hidden(points: Points) -> Points:
        moved = points.copy()
        moved[points[:, 0] > 125] = np.nan
        return moved

    for seed in range(20):
        pair = crop_pair(raw_pair(half_hidden), 64, np.random.default_rng(seed))
        if pair is not None:
            assert np.isnan(pair.aflow[pair.image1[..., 0] > 125]).all()


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.5])
def test_crops_overlap_as_asked_whichever_is_closer(factor: float) -> None:
    sizes = (400, 400), (round(400 * factor), round(400 * factor))
    pairs = [
        crop_pair(
            raw_pair(scaling(factor), *sizes),
            64,
            np.random.default_rng(seed),
            min_overlap=0.7,
        )
        for seed in range(30)
    ]
    found = [pair for pair in pairs if pair is not None]
    assert len(found) == 30
    closer_share = max(1.0, factor**2)
    # what the probes count and what the pixels count differ by the probes' spacing
    assert min(common_share(pair) * closer_share for pair in found) > 0.65


def test_places_vary_and_repeat_with_the_seed() -> None:
    raw = raw_pair(scaling(1))

    def corners(seed: int) -> tuple[float, ...]:
        pair = crop_pair(raw, 64, np.random.default_rng(seed))
        assert pair is not None
        return (*corner_of(pair.image1), *corner_of(pair.image2))

    assert len({corners(seed) for seed in range(20)}) > 15
    assert corners(3) == corners(3)


def test_crops_reach_the_borders_of_the_picture() -> None:
    corners = []
    for seed in range(60):
        pair = crop_pair(raw_pair(scaling(1)), 64, np.random.default_rng(seed))
        assert pair is not None
        corners.append(corner_of(pair.image1))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    np.testing.assert_array_equal(low, (0, 0))
    np.testing.assert_array_equal(high, (250 - 64, 200 - 64))


@pytest.mark.parametrize(
    "flow, size1, size2",
    [
        (scaling(1, (1000, 0)), (250, 200), (250, 200)),
        (lambda points: np.full_like(points, np.nan), (250, 200), (250, 200)),
        (scaling(1), (63, 200), (250, 200)),
        (scaling(1), (250, 200), (250, 63)),
    ],
    ids=["disjoint", "unknown", "small first", "small second"],
)
def test_pictures_without_common_ground_give_none(flow, size1, size2) -> None:
    pair = crop_pair(raw_pair(flow, size1, size2), 64, np.random.default_rng(0))
    assert pair is None


def test_a_picture_of_the_size_of_the_crop_is_enough() -> None:
    raw = raw_pair(scaling(1), (64, 64), (64, 64))
    pair = crop_pair(raw, 64, np.random.default_rng(0))
    assert pair is not None
    expected = pixel_grid(np.arange(64), np.arange(64)).reshape(64, 64, 2)
    np.testing.assert_array_equal(pair.aflow, expected)
