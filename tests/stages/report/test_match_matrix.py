"""The matrix of pairs: every pair in its cell, also where images share rows."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.stages.report.match_matrix import matrix_axis, mean_matrix


def test_each_image_has_its_row() -> None:
    axis = matrix_axis(["a", "b", "c"], most=3)
    pairs = np.array([[0, 2], [1, 2]])
    matrix = mean_matrix(axis, axis, pairs, np.array([7.0, 0.0]))
    expected = np.full((3, 3), np.nan)
    expected[0, 2], expected[1, 2] = 7, 0
    assert axis.labels == ("a", "b", "c")
    np.testing.assert_array_equal(matrix, expected)


def test_images_share_rows_and_cells_are_means() -> None:
    names = [f"{number:04d}.jpg" for number in range(2000)]
    axis = matrix_axis(names)
    assert len(axis.labels) == len(set(axis.labels)) == 250
    assert axis.labels[0] == "8 images: 0000.jpg to 0007.jpg"
    pairs = np.array([[0, 9], [7, 15], [8, 1999]])
    matrix = mean_matrix(axis, axis, pairs, np.array([10.0, 20.0, 3.0]))
    assert matrix[0, 1] == 15 and matrix[1, 249] == 3
    assert np.isfinite(matrix).sum() == 2


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251, 1001])
def test_every_image_is_in_a_row(count: int) -> None:
    axis = matrix_axis([str(number) for number in range(count)])
    assert len(axis.row_of) == count
    assert len(axis.labels) == len(set(axis.row_of.tolist())) <= 250
