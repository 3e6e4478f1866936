"""What core.selection does, as nodes of ONNX in shapes that are known beforehand.

Of every level TopK takes the best places, maxima above the thresholds first.
"""

from __future__ import annotations

import numpy as np
import torch

from r2d2_kapture.config.export_model import Size
from r2d2_kapture.config.extract import SelectionConfig
from r2d2_kapture.coordinates import HALF_PIXEL
from r2d2_kapture.core.onnx_writer import Value
from r2d2_kapture.core.selection import FIT_RADIUS, quadratic_fit
from r2d2_kapture.stages.export_model.onnx_network import Maps

NOWHERE = -1.0
"""Score of a place that is no keypoint."""


def best_maxima(
    maps: Maps, size: Size, settings: SelectionConfig, count: int
) -> tuple[Value, Value]:
    """Scores and places of the best maxima of a level, then of others.

    Args:
        maps: (1, 1, h, w) both confidences.
        size: h and w.
        settings: thresholds.
        count: K.

    Returns:
        (K,) scores, NOWHERE where there is no maximum, and (K,) int64 ranks in the
        raster.
    """
    reliability, repeatability = maps.reliability, maps.repeatability
    neighbourhood = repeatability.writer.node(
        "MaxPool", repeatability, kernel_shape=[3, 3], pads=[1] * 4
    )
    found = (
        (repeatability >= neighbourhood)
        & (repeatability >= settings.repeatability_thr)
        & (reliability >= settings.reliability_thr)
    )
    scores = (reliability * repeatability).where(found, NOWHERE)
    return scores.reshape(size.count).best(count)


def subpixel_offsets(
    repeatability: Value, size: Size, row: Value, column: Value
) -> tuple[Value, Value]:
    """The peak of a quadratic surface around each maximum.

    Args:
        repeatability: (1, 1, h, w).
        size: h and w.
        row, column: (K,) int64.

    Returns:
        (K,) float32 along x, and along y.
    """
    odds, weights = _odds_around(repeatability, size, row, column)
    fit = odds.writer.node("MatMul", odds, weights)
    gx, gy, hxx, hxy, hyy = fit.split(5, axis=1)
    determinant = hxx * hyy - hxy * hxy
    peak = (hxx < 0) & (hyy < 0) & (determinant > hxx * hyy * 1e-3)
    peak = peak & (determinant > (hxx + hyy) * (hxx + hyy) * 1e-5)
    safe = determinant.where(peak, 1)
    x, y = (
        (step / safe).clamp(-HALF_PIXEL, HALF_PIXEL).where(peak, 0).reshape(-1)
        for step in (hxy * gy - hyy * gx, hxy * gx - hxx * gy)
    )
    return x, y


def _odds_around(
    repeatability: Value, size: Size, row: Value, column: Value
) -> tuple[Value, Value]:
    """(K, 25) odds around maxima, less their own, and (25, 5) weights of the fit."""
    writer = repeatability.writer
    dx, dy, weights = (values.numpy() for values in quadratic_fit(torch.device("cpu")))
    border = writer.shape(*[0, 0, FIT_RADIUS, FIT_RADIUS] * 2)
    padded = writer.node("Pad", repeatability, border, mode="edge")
    width = size.width + 2 * FIT_RADIUS
    steps = writer.constant((dy + FIT_RADIUS) * width + dx + FIT_RADIUS, "int64")
    near = (row * width + column).reshape(-1, 1) + steps
    window = padded.reshape(-1).take(near)
    odds = window / (1 - window).at_least(float(np.finfo(np.float32).eps))
    own = odds.take(writer.constant([len(dx) // 2], "int64"), axis=1)
    return odds - own, writer.constant(weights)


def interpolated(features: Value, size: Size, x: Value, y: Value) -> Value:
    """Features at sub-pixel positions, by bilinear weights.

    Args:
        features: (1, D, h, w).
        size: h and w.
        x, y: (K,) float32.

    Returns:
        (D, K), not normalised.
    """
    writer = features.writer
    flat = features.reshape(-1, size.count)
    left, top = (
        writer.node("Floor", value).clamp(0, max(side - 2, 0))
        for value, side in ((x, size.width), (y, size.height))
    )
    wx, wy = (x - left).clamp(0, 1), (y - top).clamp(0, 1)
    place = top.to("int64") * size.width + left.to("int64")
    right, below = int(size.width > 1), size.width * int(size.height > 1)

    def at(step: int) -> Value:
        return flat.take(place + step, axis=1)

    above = at(0) * (1 - wx) + at(right) * wx
    beneath = at(below) * (1 - wx) + at(below + right) * wx
    return above * (1 - wy) + beneath * wy
