"""Choosing pairs by order and by score, on indices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from r2d2_kapture.matching import pair_selection
from r2d2_kapture.matching.pair_selection import (
    Selection,
    best_of,
    covisible,
    every_with_every,
    exhaustive,
    sequential,
)
from r2d2_kapture.types import IndexArray


def indices(selection: Selection) -> list[tuple[int, int]]:
    return list(zip(selection.first.tolist(), selection.second.tolist()))


@pytest.fixture(params=[1, 5, 1 << 20])
def block_pairs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image at a time, a few, and all."""
    monkeypatch.setattr(pair_selection, "BLOCK_PAIRS", request.param)


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


def selected(scores: list[list[float]]) -> Selection:
    """All rows of a matrix with all columns, those of the last rows first."""
    first, second = np.indices(np.shape(scores)).reshape(2, -1)[:, ::-1]
    return Selection(first=first, second=second, scores=np.array(scores)[first, second])


def test_the_best_by_falling_score_then_lower_index() -> None:
    pairs = selected([[0.1, 0.9, 0.9, 0.5], [0.3, 0.3, 0.3, 0.3]])
    found = best_of(pairs, top_k=2)
    assert indices(found) == [(0, 1), (0, 2), (1, 0), (1, 1)]
    assert found.scores.tolist() == [0.9, 0.9, 0.3, 0.3]
    found = best_of(selected([[0.1, -0.4, 0.7]]))
    assert indices(found) == [(0, 2), (0, 0), (0, 1)]
    assert len(best_of(selected([[]]), top_k=3)) == 0


@pytest.mark.usefixtures("block_pairs")
@pytest.mark.parametrize("over_union", [False, True])
@pytest.mark.parametrize("top_k", [0, 2])
def test_covisibility_by_brute_force(over_union: bool, top_k: int) -> None:
    rng = np.random.default_rng(4)
    points = [rng.integers(0, 30, rng.integers(0, 12)) for _ in range(20)]
    expected = []
    for i, seen in enumerate(points):
        scores = {}
        for j, other in enumerate(points):
            common, union = set(seen) & set(other), set(seen) | set(other)
            if i != j and common:
                scores[i, j] = len(common) / (len(union) if over_union else 1)
        best = sorted(scores, key=lambda pair: (-scores[pair], pair))
        expected += [(pair, scores[pair]) for pair in best[: top_k or None]]
    found = covisible(points, top_k=top_k, over_union=over_union)
    assert indices(found) == [pair for pair, _ in expected]
    assert found.scores.tolist() == [score for _, score in expected]
    least = float(np.median(found.scores))
    few = covisible(points, top_k=top_k, over_union=over_union, min_score=least)
    assert 0 < len(few) == (found.scores >= least).sum()


@pytest.mark.usefixtures("block_pairs")
def test_covisibility_counts_common_points_once() -> None:
    points = [[0, 1, 1, 2], [1, 2, 3], [], [3, 3]]
    listed: list[IndexArray] = [np.array(one, np.int64) for one in points]
    found = covisible(listed)
    assert indices(found) == [(0, 1), (1, 0), (1, 3), (3, 1)]
    assert found.scores.tolist() == [2, 2, 1, 1]


def test_covisibility_of_nothing() -> None:
    assert len(covisible([])) == len(covisible([np.zeros(0, np.int64)])) == 0
