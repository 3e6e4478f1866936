"""Guided matching against its definition, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from r2d2_kapture.matching import guided, mutual_nn
from r2d2_kapture.matching.guided import (
    EpipolarBand,
    Geometry,
    HomographyRadius,
    match_guided,
)
from r2d2_kapture.matching.mutual_nn import match_mutual_nearest
from r2d2_kapture.types import PairMatches, unit_rows
from tests.scenes.two_views import H_2_FROM_1

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Make = Callable[[Array, Array, float], Geometry]
F_2_FROM_1 = np.array([[0, -1e-6, 1e-3], [1.1e-6, 0, -2e-3], [-1.1e-3, 2.1e-3, 1e-2]])
NOTHING = np.zeros((0, 2), np.int64)


def band(points1: Array, points2: Array, limit: float) -> EpipolarBand:
    return EpipolarBand.of(points1, points2, F_2_FROM_1, limit)


def radius(points1: Array, points2: Array, limit: float) -> HomographyRadius:
    return HomographyRadius.of(points1, points2, H_2_FROM_1, limit)


def sampson(points1: Array, points2: Array) -> Array:
    """(N, M) of all pairs, Hartley and Zisserman, equation 11.9."""
    x1, x2 = (np.column_stack([xy, np.ones(len(xy))]) for xy in (points1, points2))
    lines2, lines1 = x1 @ F_2_FROM_1.T, x2 @ F_2_FROM_1
    normals = (lines2[:, None, :2] ** 2).sum(2) + (lines1[None, :, :2] ** 2).sum(2)
    return np.abs(lines2 @ x2.T) / np.sqrt(normals)


def transfer(points1: Array, points2: Array) -> Array:
    """(N, M) of all pairs, the larger of both images."""

    def projected(xy: Array, H: Array) -> Array:
        found = np.column_stack([xy, np.ones(len(xy))]) @ H.T
        return np.asarray(found[:, :2] / found[:, 2:])

    forward = projected(points1, H_2_FROM_1)[:, None] - points2
    backward = points1[:, None] - projected(points2, np.linalg.inv(H_2_FROM_1))
    return np.maximum(*(np.linalg.norm(each, axis=2) for each in (forward, backward)))


KINDS = pytest.mark.parametrize(
    ("make", "errors", "limit"), [(band, sampson, 4.0), (radius, transfer, 90.0)]
)


def features(count: int, seed: int, dim: int = 8) -> tuple[Array, Floats]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, [640, 480], (count, 2))
    return xy, unit_rows(rng.normal(size=(count, dim)).astype(np.float32))


def match(
    first: Floats, second: Floats, geometry: Geometry, known: npt.ArrayLike = NOTHING
) -> PairMatches:
    rows = np.asarray(known, np.int64).reshape(-1, 2)
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    return match_guided(*tensors, geometry, rows)


def definition(first: Floats, second: Floats, allowed: Bools) -> list[tuple[int, int]]:
    similarity = np.where(allowed, first @ second.T, -np.inf)
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    return [
        (i, int(j)) for i, j in enumerate(forward) if backward[j] == i and allowed[i, j]
    ]


def pairs(of: PairMatches) -> list[tuple[int, int]]:
    return [(i, j) for i, j in of.indices.tolist()]


@KINDS
@pytest.mark.parametrize("rows", [32, 300])
def test_matches_are_the_mutual_best_of_those_within_the_distance(
    make: Make,
    errors: Callable[[Array, Array], Array],
    limit: float,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(mutual_nn.BLOCK_VALUES, "cpu", rows * 230)
    (xy1, first), (xy2, second) = features(300, 0), features(230, 1)
    allowed = errors(xy1, xy2) <= limit
    assert 0.01 < allowed.mean() < 0.1
    found = match(first, second, make(xy1, xy2, limit))
    expected = definition(first, second, allowed)
    assert pairs(found) == expected and len(expected) > 60
    np.testing.assert_allclose(
        found.scores, [first[i] @ second[j] for i, j in expected], atol=1e-6
    )


@KINDS
def test_without_a_limit_they_are_the_mutual_nearest_neighbours(
    make: Make, errors: Callable[[Array, Array], Array], limit: float
) -> None:
    (xy1, first), (xy2, second) = features(150, 0), features(90, 1)
    found = match(first, second, make(xy1, xy2, 1e6))
    plain = match_mutual_nearest(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_array_equal(found.indices, plain.indices)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-9, -3.0, 1e9])
def test_any_multiple_of_a_matrix_is_the_same_geometry(scale: float) -> None:
    (xy1, first), (xy2, second) = features(100, 0), features(100, 1)
    plain = pairs(match(first, second, band(xy1, xy2, 8.0)))
    scaled = EpipolarBand.of(xy1, xy2, scale * F_2_FROM_1, 8.0)
    assert pairs(match(first, second, scaled)) == plain and plain
    plain = pairs(match(first, second, radius(xy1, xy2, 90.0)))
    turned = HomographyRadius.of(xy1, xy2, scale * H_2_FROM_1, 90.0)
    assert pairs(match(first, second, turned)) == plain and plain


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_of_equal_similarities_the_lower_index_counts(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided, "block_rows", lambda *_: rows)
    same = unit_rows(np.ones((5, 4), np.float32))
    everywhere = radius(np.zeros((5, 2)), np.zeros((5, 2)), 1e6)
    assert pairs(match(same, same, everywhere)) == [(0, 0)]


def test_known_matches_keep_their_keypoints_and_say_what_is_similar() -> None:
    xy, first = features(40, 0, dim=32)
    rng = np.random.default_rng(2)
    near = unit_rows(first + 0.05 * rng.normal(size=first.shape).astype(np.float32))
    far = unit_rows(first + 0.4 * rng.normal(size=first.shape).astype(np.float32))
    second = np.where(np.arange(40)[:, None] < 30, near, far)
    geometry = HomographyRadius.of(xy, xy, np.eye(3), 5.0)
    every = [(i, i) for i in range(40)]
    assert pairs(match(first, second, geometry)) == every
    known = [(i, i) for i in range(10)]
    found = pairs(match(first, second, geometry, known))
    # as similar as most of the known ones, which the noisy ones are not
    assert set(found) <= set(every[10:30]) and len(found) > 8
    noisy = pairs(match(first, second, geometry, every[30:]))
    assert set(noisy) == set(every[:30])


def test_rows_of_zeros_and_places_without_a_ray_match_nothing() -> None:
    (xy1, first), (xy2, second) = features(100, 0), features(100, 1)
    plain = match(first, second, band(xy1, xy2, 30.0)).indices
    xy1[plain[0, 0]], xy2[plain[1, 1]] = np.nan, np.nan
    first[plain[2, 0]], second[plain[3, 1]] = 0, 0
    left = match(first, second, band(xy1, xy2, 30.0)).indices
    assert len(plain) > 20 and len(left)
    assert not {plain[0, 0], plain[2, 0]} & set(left[:, 0].tolist())
    assert not {plain[1, 1], plain[3, 1]} & set(left[:, 1].tolist())


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_images_with_no_or_one_keypoint(counts: tuple[int, int]) -> None:
    (xy1, first), (xy2, second) = features(counts[0], 0), features(counts[1], 1)
    for make in (band, radius):
        found = match(first, second, make(xy1, xy2, 1e6))
        assert len(found) == (counts == (1, 1))
        assert found.indices.dtype == np.int64 and found.scores.dtype == np.float32


def test_places_far_from_the_origin_lose_no_precision() -> None:
    """Pixels of a large image, a tenth of a pixel within and beyond the limit."""
    xy, first = features(200, 0, dim=64)
    xy = xy * 20 + 9000
    step = np.where(np.arange(200) % 2, 0.9, 1.1)
    for geometry in (
        HomographyRadius.of(xy, xy + step[:, None] * [1, 0], np.eye(3), 1.0),
        # a sideways motion: lines are rows, and the distance is shared by both images
        EpipolarBand.of(
            xy,
            xy + np.sqrt(2) * step[:, None] * [0, 1],
            np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]),
            1.0,
        ),
    ):
        found = pairs(match(first, first, geometry))
        true = [(i, j) for i, j in found if i == j]
        assert true == [(i, i) for i in range(1, 200, 2)]
