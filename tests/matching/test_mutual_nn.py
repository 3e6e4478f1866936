"""Mutual nearest neighbours against the definition, in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from r2d2_kapture.matching import mutual_nn
from r2d2_kapture.matching.mutual_nn import match_mutual_nearest
from r2d2_kapture.types import PairMatches
from tests.scenes.features import unit_rows

Array = npt.NDArray[np.float32]


def match(first: Array, second: Array, **options: float) -> PairMatches:
    return match_mutual_nearest(
        torch.from_numpy(first), torch.from_numpy(second), **options
    )


def definition(first: Array, second: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Two arg-maxes over the whole matrix, made by torch as a straightforward one."""
    similarity = (torch.from_numpy(first) @ torch.from_numpy(second).T).numpy()
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    rows = np.flatnonzero(backward[forward] == np.arange(len(first)))
    return np.stack([rows, forward[rows]], 1), similarity[rows, forward[rows]]


@pytest.fixture(autouse=True, params=["in_cache", "plainly"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, and as on a GPU: both must find the same."""
    if request.param == "plainly":
        monkeypatch.setattr(mutual_nn, "_search_in_cache", mutual_nn._search_plainly)


def use_blocks(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Of so few rows that a small matrix has many, of unequal size."""
    monkeypatch.setattr(mutual_nn, "BLOCK_VALUES", {"cpu": 1})
    monkeypatch.setattr(mutual_nn, "MIN_BLOCK_ROWS", rows)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_blocks(monkeypatch, 7)


SIZES = [(1, 1), (1, 50), (50, 1), (31, 32), (33, 65), (200, 150), (64, 1000)]


@pytest.mark.parametrize("rows, columns", SIZES)
def test_matches_are_those_of_two_arg_maxes_in_blocks_or_not(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = unit_rows(rows, seed=1), unit_rows(columns, seed=2)
    matches = match(first, second)
    indices, scores = definition(first, second)
    np.testing.assert_array_equal(matches.indices, indices)
    np.testing.assert_allclose(matches.scores, scores, rtol=1e-6)
    assert matches.scores.dtype == np.float32
    use_blocks(monkeypatch, 7)
    np.testing.assert_array_equal(match(first, second).indices, indices)


@pytest.mark.usefixtures("small_blocks")
def test_of_equal_similarities_the_lower_index_counts() -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(6, dtype=np.float32)
    counts = []
    for _ in range(200):
        first = axes[rng.integers(6, size=rng.integers(1, 60))]
        second = axes[rng.integers(6, size=rng.integers(1, 600))]
        matches = match(first, second)
        np.testing.assert_array_equal(matches.indices, definition(first, second)[0])
        counts.append(len(matches))
    assert max(counts) == 6


@pytest.mark.parametrize("at", [0, 127, 128, 200, 255, 256, 299])
def test_of_equal_columns_in_groups_or_beyond_them_the_first_counts(at: int) -> None:
    first, second = unit_rows(20, seed=11), unit_rows(300, seed=12)
    second[at:] = first[0]
    np.testing.assert_array_equal(
        match(first, second).indices, definition(first, second)[0]
    )
    assert [0, at] in match(first, second).indices.tolist()


@pytest.mark.parametrize("rows, columns, dim", [(40, 300, 128), (16, 16, 2), (3, 9, 8)])
def test_the_product_of_either_library_is_the_same(
    rows: int, columns: int, dim: int
) -> None:
    first = torch.from_numpy(unit_rows(rows, dim, seed=13))
    second = torch.from_numpy(unit_rows(columns, dim, seed=14))
    exact = first.double() @ second.double().T
    torch.testing.assert_close(
        mutual_nn.product(first, second).double(), exact, rtol=0, atol=1e-6
    )


def test_a_tie_across_blocks_goes_to_the_earlier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_blocks(monkeypatch, 1)
    axis = np.eye(4, dtype=np.float32)
    first = np.stack([axis[1], axis[0], axis[0]])
    second = np.stack([axis[2], axis[0], axis[0]])
    assert [1, 1] in match(first, second).indices.tolist()
    assert 2 not in match(first, second).indices[:, 0]


def test_a_better_row_of_a_later_block_takes_the_column() -> None:
    """The first row loses its match to the last, and gets no other."""
    second = unit_rows(1, seed=3)
    far, near = unit_rows(100, seed=4), second
    first = np.concatenate([far, near])
    assert match(first, second).indices.tolist() == [[100, 0]]


def test_matches_are_sorted_and_the_same_in_the_other_order() -> None:
    indices = match(unit_rows(300, seed=5), unit_rows(300, seed=6)).indices
    assert len(indices) > 50
    assert (np.diff(indices[:, 0]) > 0).all()
    assert len(set(indices[:, 1].tolist())) == len(indices)
    first, second = unit_rows(120, seed=7), unit_rows(90, seed=8)
    np.testing.assert_array_equal(
        match(second, first).swapped().indices, match(first, second).indices
    )


@pytest.mark.parametrize("rows, columns", [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize("ratio", [1.0, 0.8])
def test_no_descriptors_no_matches(rows: int, columns: int, ratio: float) -> None:
    matches = match(unit_rows(rows), unit_rows(columns), ratio=ratio)
    assert matches.indices.shape == (0, 2)
    assert matches.scores.shape == (0,)


def test_a_row_of_zeros_matches_nothing_but_negative_similarities_do() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = match_mutual_nearest(first, second)
    np.testing.assert_array_equal(found.indices, [[1, 2]])
    assert len(match_mutual_nearest(first[:1], second[:2])) == 0
    # orthogonal rows do match: their similarity is 0 as well
    found = match_mutual_nearest(first[1:], torch.tensor([[0.0, 1.0]]))
    np.testing.assert_array_equal(found.indices, [[0, 0]])
    row = np.array([[1.0, 0.0]], np.float32)
    assert match(row, -row).scores.tolist() == [-1.0]


def test_min_similarity_keeps_what_reaches_it() -> None:
    first, second = unit_rows(200, seed=9), unit_rows(200, seed=10)
    every = match(first, second)
    least = float(np.median(every.scores))
    kept = match(first, second, min_similarity=least)
    np.testing.assert_array_equal(kept.indices, every.indices[every.scores >= least])
    assert 0 < len(kept) < len(every)


def at_angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def distance(degrees: float) -> float:
    """Between two unit vectors at that angle."""
    return 2 * float(np.sin(np.radians(degrees / 2)))


def vectors_at(*degrees: float) -> Array:
    return np.array([at_angle(angle) for angle in degrees], np.float32)


def test_ratio_is_of_distances_to_nearest_and_second_in_both_directions() -> None:
    one, two = vectors_at(0), vectors_at(10, 20)
    limit = distance(10) / distance(20)
    assert len(match(one, two, ratio=limit + 1e-4)) == 1
    assert len(match(one, two, ratio=limit - 1e-4)) == 0
    close = vectors_at(10, 11)
    assert len(match(one, close, ratio=0.9)) == 0
    assert len(match(close, one, ratio=0.9)) == 0
    assert len(match(close, one, ratio=0.95)) == 1
    # where there is no second it passes, and refuses exact doubles
    assert len(match(one, one, ratio=0.1)) == 1
    double = vectors_at(5, 5)
    assert len(match(one, double)) == 1
    assert len(match(one, double, ratio=0.99)) == 0


@pytest.mark.usefixtures("small_blocks")
def test_ratio_against_its_definition() -> None:
    first, second = unit_rows(150, seed=11), unit_rows(170, seed=12)
    distances = np.linalg.norm(
        first[:, None].astype(np.float64) - second[None].astype(np.float64), axis=2
    )
    kept = []
    for i, j in definition(first, second)[0].tolist():
        rivals = np.concatenate(
            [np.delete(distances[i], j), np.delete(distances[:, j], i)]
        )
        if distances[i, j] <= 0.85 * rivals.min():
            kept.append([i, j])
    assert 0 < len(kept) < 60
    assert match(first, second, ratio=0.85).indices.tolist() == kept


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    first, second = unit_rows(700, 64, seed=13), unit_rows(600, 64, seed=14)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        matches = match(first, second)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(matches.indices, definition(first, second)[0])
