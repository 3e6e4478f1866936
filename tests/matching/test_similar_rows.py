"""The most similar rows: those of float64, whatever is held at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.matching import similar_rows
from r2d2_kapture.matching.pair_selection import Selection
from r2d2_kapture.matching.similar_rows import exact_cosines, most_similar
from tests.scenes.features import unit_rows

Rows = npt.NDArray[np.float32]
MEMORIES = (1.0, 20_000.0, 1e9)
"""Bytes: for one row at a time, a few, and all."""


@dataclass(eq=False)
class Held:
    """Rows that note which blocks were read."""

    values: Rows
    blocks: list[slice] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    def read(self, rows: slice) -> Rows:
        self.blocks.append(rows)
        return self.values[rows]


def by_brute_force(
    rows: Rows, others: Rows, top_k: int, least: float = -2
) -> list[tuple[int, int]]:
    scores = rows.astype(np.float64) @ others.astype(np.float64).T
    scores[~rows.any(axis=1)] = scores[:, ~others.any(axis=1)] = -np.inf
    return [
        (i, int(j))
        for i, row in enumerate(scores)
        for j in np.argsort(-row, kind="stable")[: top_k or None]
        if row[j] >= least
    ]


def pairs_of(found: Selection) -> list[tuple[int, int]]:
    return list(zip(found.first.tolist(), found.second.tolist()))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("top_k", [0, 1, 3, 40, 60])
def test_whatever_the_memory_they_are_those_of_float64(
    memory: float, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar_rows, "TILE_HEIGHT", 5)
    rows, others = unit_rows(23, 16, seed=1), unit_rows(51, 16, seed=2)
    rows[4] = others[7] = 0
    found = most_similar(Held(rows), Held(others), top_k=top_k, memory=memory)
    assert pairs_of(found) == by_brute_force(rows, others, top_k)
    expected = rows.astype(np.float64)[found.first] * others[found.second]
    np.testing.assert_allclose(found.scores, expected.sum(1), rtol=0, atol=1e-15)
    whole = most_similar(Held(rows), Held(others), top_k=top_k, memory=1e12)
    assert found.scores.tobytes() == whole.scores.tobytes()


@pytest.mark.parametrize("memory", MEMORIES)
def test_of_equal_ones_the_lower_index(memory: float) -> None:
    """Also where float32 would tell equal rows apart, or unlike ones not."""
    rng = np.random.default_rng(0)
    few = unit_rows(3, 300, seed=3)
    others = few[rng.integers(0, 3, 40)]
    others[10:30] += 3e-8 * rng.normal(size=(20, 300)).astype(np.float32)
    found = most_similar(Held(few), Held(others), top_k=7, memory=memory)
    assert pairs_of(found) == by_brute_force(few, others, 7)


@pytest.mark.parametrize("memory", MEMORIES)
def test_least_score_and_pairs_apart(memory: float) -> None:
    rows = unit_rows(30, 8, seed=5)
    settings = {"top_k": 4, "min_score": 0.2, "memory": memory}

    def near(rows: slice, others: slice) -> npt.NDArray[np.bool_]:
        steps = np.subtract.outer(
            np.arange(rows.start, rows.stop), np.arange(others.start, others.stop)
        )
        return np.asarray(abs(steps) <= 6)

    found = most_similar(Held(rows), Held(rows), apart=near, **settings)
    far = [
        (i, j) for i, j in by_brute_force(rows, rows, 0, least=0.2) if abs(i - j) > 6
    ]
    ranked = [pair for i in range(30) for pair in [p for p in far if p[0] == i][:4]]
    assert len(ranked) > 30 and pairs_of(found) == ranked
    none = most_similar(Held(rows), Held(rows[:0]), **settings)
    assert len(none) == len(most_similar(Held(rows[:0]), Held(rows), **settings)) == 0


def test_others_are_read_once_for_each_block_of_rows() -> None:
    rows, others = Held(unit_rows(10, 64)), Held(unit_rows(25, 64, seed=1))
    # blocks of five rows
    most_similar(rows, others, top_k=2, memory=9 * 4 * 64 * 5)
    assert [(b.start, b.stop) for b in rows.blocks] == [(0, 5), (5, 10)]
    assert [(b.start, b.stop) for b in others.blocks] == 2 * [
        (start, start + 5) for start in range(0, 25, 5)
    ]


@pytest.mark.parametrize("dim", [1, 2, 7, 128, 5000, 20_000])
def test_a_product_is_the_same_beside_any_others(dim: int) -> None:
    rows, others = unit_rows(9, dim, seed=6), unit_rows(4, dim, seed=7)
    first, second = np.arange(9), np.arange(9) % 4
    found = exact_cosines(rows, others, first, second)
    alone = [
        exact_cosines(rows[i : i + 1], others[j : j + 1], *np.zeros((2, 1), int))
        for i, j in zip(first, second)
    ]
    assert found.tobytes() == np.concatenate(alone).tobytes()
    back = exact_cosines(others, rows, second, first)
    assert found.tobytes() == back.tobytes()
