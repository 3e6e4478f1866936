"""A network as nodes of ONNX: pixels to features and both confidences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from r2d2_kapture.core.graph import confidence_heads, folded_layers
from r2d2_kapture.core.onnx_layers import add_layers
from r2d2_kapture.core.onnx_writer import OnnxWriter, Value
from r2d2_kapture.core.pyramid import DEVIATION, MEAN
from r2d2_kapture.models.int8 import Quantization
from r2d2_kapture.models.network import DenseNetwork

SMALLEST_NORM = 1e-12
"""Below which torch does not divide a descriptor by its norm."""


class Maps(NamedTuple):
    """Values of one pass: (B, D, h, w), and twice (B, 1, h, w)."""

    features: Value
    reliability: Value
    repeatability: Value


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxNetwork:
    """A network whose passes are added to a model.

    Attributes:
        writer: of the model.
        network: in evaluation mode.
        quantization: of its convolutions; None computes in float32.
    """

    writer: OnnxWriter
    network: DenseNetwork
    quantization: Quantization | None

    def normalized(self, image: Value) -> Value:
        """What pyramid.normalize_rgb does to (..., 3) RGB, 0 to 255, of any type."""
        pixels = image.to("float32") / 255
        shifted = pixels - self.writer.constant(MEAN)
        return shifted / self.writer.constant(DEVIATION)

    def maps(self, planes: Value) -> Maps:
        """One pass over (B, 3, H, W) float32, normalised."""
        layers = folded_layers(self.network.ops)
        features = add_layers(planes, layers, self.quantization)
        heads = confidence_heads(self.network)
        weights = (self.writer.constant(v.numpy()) for v in (heads.weight, heads.bias))
        logits = self.writer.node("Conv", features * features, *weights)
        reliable, repeatable = logits.split(2, axis=1)
        positive = self.writer.node("Softplus", repeatable)
        return Maps(
            features=features,
            reliability=self.writer.node("Sigmoid", reliable),
            repeatability=positive / (positive + 1),
        )


def unit(descriptors: Value, axis: int) -> Value:
    """Descriptors over their L2 norm along an axis."""
    norm = descriptors.writer.node("ReduceL2", descriptors, axes=[axis], keepdims=1)
    return descriptors / norm.at_least(SMALLEST_NORM)
