"""Mutual nearest neighbours against their plain definition."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation import matching
from r2d2_kapture.evaluation.matching import mutual_nearest_neighbours


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_mutual_nearest_neighbours_equal_the_plain_definition(
    monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(matching, "BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 55))
    similarity = first @ second.T
    expected = [
        (i, j)
        for i in range(40)
        for j in range(55)
        if similarity[i].argmax() == j and similarity[:, j].argmax() == i
    ]
    matches = mutual_nearest_neighbours(first, second)
    assert matches.dtype == np.int64
    assert [tuple(match) for match in matches] == expected


def test_a_row_of_zeros_matches_nothing() -> None:
    first = np.array([[0, 0], [1, 0]], dtype=np.float32)
    second = np.array([[-1, 0], [0, 0], [1, 0]], dtype=np.float32)
    np.testing.assert_array_equal(mutual_nearest_neighbours(first, second), [[1, 2]])


def test_a_one_sided_neighbour_is_no_match() -> None:
    first = np.array([[1, 0], [0.8, 0.6]], dtype=np.float32)
    second = np.array([[1, 0]], dtype=np.float32)
    np.testing.assert_array_equal(mutual_nearest_neighbours(first, second), [[0, 0]])


@pytest.mark.parametrize("block_rows", [1, 1000])
def test_equal_similarities_go_to_the_lower_row(
    monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(matching, "BLOCK_ROWS", block_rows)
    same = np.ones((3, 2), dtype=np.float32)
    np.testing.assert_array_equal(mutual_nearest_neighbours(same, same), [[0, 0]])


def test_no_descriptors_are_no_matches() -> None:
    none, some = np.empty((0, 4), np.float32), np.ones((3, 4), np.float32)
    assert mutual_nearest_neighbours(none, some).shape == (0, 2)
    assert mutual_nearest_neighbours(some, none).shape == (0, 2)


def test_descriptors_of_two_sizes_are_refused() -> None:
    first, second = np.ones((2, 8), np.float32), np.ones((2, 16), np.float32)
    with pytest.raises(FeatureFormatError, match="'image 1' and 'image 2'"):
        mutual_nearest_neighbours(first, second)
    with pytest.raises(FeatureFormatError, match="'a.png' and 'b.png': found 8 and 16"):
        mutual_nearest_neighbours(first, second, ("a.png", "b.png"))
