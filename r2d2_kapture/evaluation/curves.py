"""Curves over a threshold: shares of errors within it, and areas below them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def share_within(errors: Array, thresholds: Sequence[float]) -> Array:
    """Share of the errors that are at most each threshold.

    Args:
        errors: (K,), infinite where something failed.
        thresholds: T thresholds in the unit of the errors.

    Returns:
        (T,) float64 in 0 to 1; zeros where there are no errors.
    """
    within = errors[:, None] <= np.asarray(thresholds, dtype=np.float64)
    return np.asarray(within.sum(axis=0) / max(len(errors), 1), dtype=np.float64)


def area_under_curve(errors: Array, thresholds: Sequence[float]) -> Array:
    """Area below the share of errors within x, for x from 0 to each threshold t, by t.

    The share F(x) is a step function, so the area is exact: the integral of F over
    (0, t), divided by t, is the mean of max(0, 1 - error / t). SuperGlue (Sarlin et
    al., CVPR 2020), whose curve this is, joins the steps by straight lines, which adds
    at most 1 / 2n for n errors.

    Args:
        errors: (K,), not negative; infinite where something failed.
        thresholds: T thresholds above 0, in the unit of the errors.

    Returns:
        (T,) float64 in 0 to 1; zeros where there are no errors.
    """
    if len(errors) == 0:
        return np.zeros(len(thresholds))
    relative = errors[:, None] / np.asarray(thresholds, dtype=np.float64)
    return np.asarray(np.maximum(0.0, 1.0 - relative).mean(axis=0), dtype=np.float64)
