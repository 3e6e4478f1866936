"""The whole extractor of one image size as nodes of ONNX: levels, places, the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from r2d2_kapture.config.export_model import Size
from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.core.onnx_writer import Value
from r2d2_kapture.core.pyramid import Level
from r2d2_kapture.stages.export_model.onnx_network import OnnxNetwork, unit
from r2d2_kapture.stages.export_model.onnx_selection import (
    best_maxima,
    interpolated,
    subpixel_offsets,
)
from r2d2_kapture.stages.export_model.plan import ExtractorPlan
from r2d2_kapture.stages.export_model.resampling import Taps, resizing_taps
from r2d2_kapture.types import PATCH_DIAMETER

COLUMNS = {"keypoints": 2, "scales": 1, "scores": 1}
"""Widths of what a row holds before its descriptor."""
SCORE = 3
"""Column of the score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxExtractor:
    """Adds the whole extractor to a model.

    Attributes:
        network: that every level goes through.
        plan: sizes and settings.
    """

    network: OnnxNetwork
    plan: ExtractorPlan

    def extract(self, image: Value) -> dict[str, Value]:
        """Extract (H, W, 3) RGB, 0 to 255.

        Returns:
            (K, 2) keypoints in pixels of the image, (K,) scales and scores, and (K, D)
            descriptors; those of keypoints first, zeros below; and (1,) int64 count of
            keypoints.
        """
        pixels = self.network.normalized(image)
        return self._best([self._rows(*item) for item in self._pyramid(pixels)])

    def _pyramid(self, pixels: Value) -> Iterator[tuple[Level, Value]]:
        """The levels with an output, and their pixels: (h, w, 3)."""
        antialias = self.plan.settings.coordinates == "corrected"
        whole = self.plan.size
        above, size = pixels, whole
        for level in self.plan.levels:
            if antialias and not level.searched:
                continue
            source, of = (pixels, whole) if antialias else (above, size)
            size = Size(height=level.height, width=level.width)
            above = source if size == of else _resized(source, of, size, antialias)
            if self.plan.has_output(level):
                yield level, above

    def _rows(self, level: Level, pixels: Value) -> Value:
        """The best places of a level: (K, COLUMNS and descriptor).

        All of it in one value, or a runtime may keep the maps of every level until it
        comes to the descriptors.
        """
        settings, size = self.plan.settings, self.plan.map_size(level)
        count = min(settings.top_k, size.count)
        planes = pixels.transpose(2, 0, 1).reshape(1, 3, level.height, level.width)
        maps = self.network.maps(planes)
        scores, places = best_maxima(maps, size, settings, count)
        row = places / size.width
        column = places - row * size.width
        x, y = column.to("float32"), row.to("float32")
        if settings.subpixel:
            right, down = subpixel_offsets(maps.repeatability, size, row, column)
            x, y = x + right, y + down
            features = interpolated(maps.features, size, x, y)
        else:
            features = maps.features.reshape(-1, size.count).take(places, axis=1)
        x = self._in_image(x, level.width, self.plan.size.width)
        y = self._in_image(y, level.height, self.plan.size.height)
        writer = self.network.writer
        scale = writer.constant([PATCH_DIAMETER / level.scale])
        scales = writer.node("Expand", scale, writer.shape(count))
        columns = [value.reshape(count, 1) for value in (x, y, scales, scores)]
        descriptors = unit(features.transpose(1, 0), axis=1)
        return writer.concatenate([*columns, descriptors], axis=1)

    def _in_image(self, value: Value, level_side: int, image_side: int) -> Value:
        """Positions along one axis of a level as pixels of the image."""
        resize = self.plan.settings.coordinates
        ends = np.array([0.0, 1.0])
        first, second = image_from_level(ends, level_side, image_side, resize)
        return value * float(second - first) + float(first)

    def _best(self, levels: Sequence[Value]) -> dict[str, Value]:
        """The best rows of all levels, in columns, and the number of keypoints."""
        writer, count = self.network.writer, self.plan.settings.top_k
        rows = writer.concatenate(levels)
        scores, index = rows.take(writer.constant(SCORE, "int64"), axis=1).best(count)
        found = scores >= 0
        best = rows.take(index).where(found.reshape(count, 1), 0)
        widths = [*COLUMNS.values(), self.network.network.descriptor_dim]
        parts = writer.nodes("Split", len(widths), best, writer.shape(*widths), axis=1)
        keypoints, scales, scores, descriptors = parts
        summed = (found.to("int64"), writer.shape(0))
        return {
            "keypoints": keypoints,
            "scales": scales.reshape(count),
            "scores": scores.reshape(count),
            "descriptors": descriptors,
            "count": writer.node("ReduceSum", *summed, keepdims=1),
        }


def _resized(source: Value, of: Size, to: Size, antialias: bool) -> Value:
    """(H, W, 3) to (h, w, 3), rows first: to gather them is to copy whole rows."""
    for length, target, other in (
        (of.height, to.height, of.width),
        (of.width, to.width, to.height),
    ):
        taps = resizing_taps(length, target, antialias=antialias)
        source = _summed(source, taps, other).transpose(1, 0, 2)
    return source


def _summed(source: Value, taps: Taps, width: int) -> Value:
    """(N, W, 3) to (M, W, 3), each row a sum of K rows."""
    writer = source.writer
    rows, count = taps.indices.shape
    gathered = source.take(writer.constant(taps.indices.ravel(), "int64"))
    weights = writer.constant(taps.weights[:, None])
    summed = writer.node("MatMul", weights, gathered.reshape(rows, count, 3 * width))
    return summed.reshape(rows, width, 3)
