"""Choosing pairs by order and by score, on indices."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.matching import pair_selection
from r2d2_kapture.matching.pair_selection import (
    Selection,
    best_partners,
    centres_and_axes,
    cosine_blocks,
    covisibility_blocks,
    every_with_every,
    exhaustive,
    pose_blocks,
    sequential,
    without_same,
)
from tests.scenes.features import unit_rows

Array = npt.NDArray[np.float64]


def indices(selection: Selection) -> list[tuple[int, int]]:
    return list(zip(selection.first.tolist(), selection.second.tolist()))


def whole(blocks: object) -> Array:
    return np.concatenate(list(blocks))  # type: ignore[call-overload]


@pytest.fixture(params=[1, 7, 1 << 24])
def block_values(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row at a time, a few, and all."""
    monkeypatch.setattr(pair_selection, "BLOCK_VALUES", request.param)


def test_exhaustive_has_each_pair_once() -> None:
    assert indices(exhaustive(4)) == list(itertools.combinations(range(4), 2))
    assert len(exhaustive(1)) == len(exhaustive(0)) == 0
    found = indices(every_with_every(2, 3))
    assert found == list(itertools.product(range(2), range(3)))
    assert len(every_with_every(0, 3)) == 0


def test_sequences_of_growing_steps_that_may_close() -> None:
    found = sequential(np.array([5, 3, 9, 1]), overlap=2)
    assert dict(zip(indices(found), found.scores.tolist())) == {
        (5, 3): 1,
        (3, 9): 1,
        (9, 1): 1,
        (5, 9): 0.5,
        (3, 1): 0.5,
    }
    found = sequential(np.arange(40), overlap=5, quadratic=True)
    steps = {j - i for i, j in indices(found)}
    assert steps == {1, 2, 3, 4, 5, 8, 16}
    found = indices(sequential(np.arange(5), overlap=1, loop=True))
    assert found == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("loop", [False, True])
def test_short_sequences(count: int, loop: bool) -> None:
    found = indices(sequential(np.arange(count), overlap=10, quadratic=True, loop=loop))
    expected = set(map(frozenset, itertools.combinations(range(count), 2)))
    assert set(map(frozenset, found)) == expected


def test_best_partners_by_falling_score_then_lower_index() -> None:
    scores = np.array([[0.1, 0.9, 0.9, 0.5], [0.3, 0.3, 0.3, 0.3]])
    found = best_partners([scores], top_k=2)
    assert indices(found) == [(0, 1), (0, 2), (1, 0), (1, 1)]
    assert found.scores.tolist() == [0.9, 0.9, 0.3, 0.3]
    scores = np.array([[-np.inf, 0.5], [-np.inf, -np.inf]])
    assert indices(best_partners([scores], top_k=2)) == [(0, 1)]
    scores = np.array([[0.1, -0.4, 0.7]])
    assert indices(best_partners([scores])) == [(0, 2), (0, 0), (0, 1)]
    assert indices(best_partners([scores], min_score=0.1)) == [(0, 2), (0, 0)]
    assert len(best_partners([scores], min_score=0.8)) == 0
    assert len(best_partners([], top_k=3)) == 0
    assert len(best_partners([np.zeros((2, 0))], top_k=3)) == 0


def test_best_partners_over_blocks() -> None:
    scores = np.random.default_rng(0).random((9, 6))
    blocks = [scores[:1], scores[1:1], scores[1:5], scores[5:]]
    found = best_partners(blocks, top_k=3)
    expected = [
        (i, int(j)) for i, row in enumerate(scores) for j in np.argsort(-row)[:3]
    ]
    assert indices(found) == expected


def test_no_image_is_its_own_partner() -> None:
    blocks = [np.ones((2, 3)), np.ones((1, 3))]
    found = indices(best_partners(without_same(blocks, np.array([2, -1, 0]))))
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.usefixtures("block_values")
def test_cosines_whatever_the_norms() -> None:
    queries, others = unit_rows(5, seed=1), unit_rows(7, seed=2)
    scaled = others * np.linspace(0.1, 30, 7, dtype=np.float32)[:, None]
    np.testing.assert_allclose(
        whole(cosine_blocks(3 * queries, scaled)), queries @ others.T, atol=1e-6
    )


@pytest.mark.usefixtures("block_values")
def test_rows_of_zeros_have_no_partners() -> None:
    queries, others = unit_rows(3, seed=1), unit_rows(3, seed=2)
    queries[1] = 0
    others[2] = 0
    scores = whole(cosine_blocks(queries, others))
    assert np.isneginf(scores[1]).all() and np.isneginf(scores[:, 2]).all()
    assert np.isfinite(scores[[0, 2], :2]).all()


def looking_along_x(centre: list[float], yaw: float) -> Array:
    """cam_from_world of a camera that looks along +x, turned about the y axis."""
    cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    # rows are the camera's axes in the world: right, down, forward
    rotation = np.array([[-sine, 0, -cosine], [0, 1, 0], [cosine, 0, -sine]])
    return np.column_stack([rotation, -rotation @ np.array(centre)])


def test_centres_and_axes_of_cameras() -> None:
    poses = np.stack([looking_along_x([1, 2, 3], 0), looking_along_x([-4, 0, 2], 90)])
    centres, axes = centres_and_axes(poses)
    np.testing.assert_allclose(centres, [[1, 2, 3], [-4, 0, 2]], atol=1e-12)
    np.testing.assert_allclose(axes, [[1, 0, 0], [0, 0, -1]], atol=1e-12)


@pytest.mark.usefixtures("block_values")
def test_poses_near_and_alike() -> None:
    poses = np.stack(
        [
            looking_along_x([0, 0, 0], 0),
            looking_along_x([3, 0, 0], 29),
            looking_along_x([0, 1, 0], 31),
            looking_along_x([0, 0, 9], 0),
        ]
    )
    scores = whole(pose_blocks(poses, poses, max_distance=5, max_angle=30))
    expected = np.full((4, 4), -np.inf)
    np.fill_diagonal(expected, 1)
    expected[0, 1] = expected[1, 0] = 1 / 4
    expected[1, 2] = expected[2, 1] = 1 / (1 + np.sqrt(10))
    np.testing.assert_allclose(scores, expected)
    far = whole(pose_blocks(poses, poses, max_distance=None, max_angle=30))
    assert far[0, 3] == pytest.approx(1 / 10)


@pytest.mark.usefixtures("block_values")
def test_covisibility_counts_common_points_once() -> None:
    points = [
        np.array([0, 1, 1, 2]),
        np.array([1, 2, 3]),
        np.array([], np.int64),
        np.array([3, 3]),
    ]
    scores = whole(covisibility_blocks(points))
    assert scores[0].tolist() == [3, 2, -np.inf, -np.inf]
    assert scores[1].tolist() == [2, 3, -np.inf, 1]
    assert np.isneginf(scores[2]).all()
    assert scores[3].tolist() == [-np.inf, 1, -np.inf, 1]


def test_covisibility_of_nothing() -> None:
    assert list(covisibility_blocks([])) == []
    assert np.isneginf(whole(covisibility_blocks([np.zeros(0, np.int64)]))).all()
