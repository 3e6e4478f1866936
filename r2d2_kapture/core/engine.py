"""Dense maps of an image: the backbone of a network and both of its confidences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from r2d2_kapture.core.backbones import open_backbone
from r2d2_kapture.core.confidences import Heads
from r2d2_kapture.core.graph import Upsampling, folded_layers
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.tiles import Tile
from r2d2_kapture.models.int8 import Quantization
from r2d2_kapture.models.network import DenseNetwork


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """Maps of one pass.

    Attributes:
        features: (B, h, w, D) in the precision of the engine, not normalised; (h, w) is
            (H, W), or half of it where the network ends by doubling its features.
        reliability: (B, H, W) float32, 0 to 1.
        repeatability: (B, H, W) float32, 0 to 1.
    """

    features: Tensor
    reliability: Tensor
    repeatability: Tensor

    @property
    def doubled(self) -> bool:
        """Whether the maps have twice the rows and columns of the features."""
        return self.features.shape[1:3] != self.reliability.shape[1:3]


class Engine:
    """A dense network: its backbone, and both confidences of what that computes.

    Where the network ends by doubling its features the backbone ends before.

    Args:
        network: in evaluation mode; it is not modified.
        runtime: from resolve_runtime.
        quantization: of its convolutions, for ``int8``.
    """

    def __init__(
        self,
        network: DenseNetwork,
        runtime: Runtime,
        quantization: Quantization | None = None,
    ) -> None:
        *before, last = network.ops
        self._doubled = folded_layers(nn.Sequential(last)) == [Upsampling(factor=2)]
        ops = nn.Sequential(*before) if self._doubled else network.ops
        self.backbone = open_backbone(ops, runtime, quantization)
        self.descriptor_dim = network.descriptor_dim
        self._heads = Heads(network, runtime.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> FeatureMaps:
        """Run one pass.

        Args:
            images: (B, 3, H, W) float32 on the engine's device, normalised RGB.
        """
        features = self.backbone(images)
        reliability, repeatability = self._heads(features, self._doubled)
        return FeatureMaps(
            features=features, reliability=reliability, repeatability=repeatability
        )

    def tiles(self, height: int, width: int, margin: int) -> Iterator[Tile]:
        """Cut a level as the backbone does; none where it is too small to have maps.

        Args:
            margin: pixels beyond the part a tile answers for where maps must be right.
        """
        stride = self.backbone.pixel_stride
        if min(height, width) < stride:
            return iter(())
        # between the outermost cells a doubled map has the next ones
        return self.backbone.tiles(height, width, margin + self._doubled * stride)
