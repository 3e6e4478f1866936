"""Shares and areas of errors that are known."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.evaluation.curves import area_under_curve, share_within


def test_shares_and_areas_of_known_errors() -> None:
    errors = np.array([1.0, 2.0, np.inf])
    np.testing.assert_allclose(share_within(errors, [0.5, 1, 2]), [0, 1 / 3, 2 / 3])
    np.testing.assert_array_equal(share_within(np.empty(0), [1, 3]), [0, 0])
    np.testing.assert_array_equal(area_under_curve(np.empty(0), [1, 3]), [0, 0])
    # the share is 0 to 1, 1/2 to 3, then 1: its area to 4 is 0 + 1 + 1
    areas = area_under_curve(np.array([3.0, 1.0]), [1, 2, 4])
    np.testing.assert_allclose(areas, [0, 0.25, 0.5])
    np.testing.assert_allclose(area_under_curve(np.zeros(3), [5, 10]), [1, 1])
    np.testing.assert_allclose(area_under_curve(np.full(3, np.inf), [5, 10]), [0, 0])


@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_piecewise_linear_area_is_as_near_as_promised(count: int) -> None:
    errors = np.sort(np.random.default_rng(count).exponential(8, count))
    recall = np.arange(count + 1) / count
    for threshold in (5.0, 20.0):
        last = int(np.searchsorted(errors, threshold))
        x = np.concatenate([[0], errors[:last], [threshold]])
        y = np.concatenate([recall[: last + 1], [recall[last]]])
        linear = np.trapezoid(y, x) / threshold
        (exact,) = area_under_curve(errors, [threshold])
        assert exact <= linear + 1e-12
        assert linear - exact <= 0.5 / count + 1e-12
