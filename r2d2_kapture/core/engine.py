"""Dense maps of an image: the backbone of a network and both of its confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r2d2_kapture.core.graph import given
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.core.torch_backbone import TorchBackbone
from r2d2_kapture.models.network import DenseNetwork, repeatability_from_logit


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """Maps of one pass.

    Attributes:
        features: (B, H, W, D) in the precision of the engine, not normalised.
        reliability: (B, H, W) float32, 0 to 1.
        repeatability: (B, H, W) float32, 0 to 1.
    """

    features: Tensor
    reliability: Tensor
    repeatability: Tensor


class Engine:
    """A dense network: its backbone, and both confidences of what that computes.

    Args:
        network: in evaluation mode; it is not modified.
        runtime: from resolve_runtime.
    """

    def __init__(self, network: DenseNetwork, runtime: Runtime) -> None:
        self.backbone = TorchBackbone(network.ops, runtime)
        self.descriptor_dim = network.descriptor_dim
        reliable = network.clf.weight[1] - network.clf.weight[0]
        heads = torch.stack([reliable, network.sal.weight[0]]).flatten(1)
        reliable_bias = torch.diff(given(network.clf.bias))
        bias = torch.cat([reliable_bias, given(network.sal.bias)])
        self._heads = heads.t().contiguous().to(runtime.device)
        self._head_bias = bias.to(runtime.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> FeatureMaps:
        """Run one pass.

        Args:
            images: (B, 3, H, W) float32 on the engine's device, normalised RGB.
        """
        features = self.backbone(images)
        reliability, repeatability = self._confidences(features)
        return FeatureMaps(
            features=features, reliability=reliability, repeatability=repeatability
        )

    def _confidences(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads in one product, over slices that stay in the cache."""
        flat = features.view(-1, features.shape[-1])
        logits = torch.empty(len(flat), 2, device=flat.device)
        rows = 1 << 20 if flat.is_cuda else 8192
        for start in range(0, len(flat), rows):
            part = flat[start : start + rows].float()
            torch.addmm(
                self._head_bias,
                part.square_() if flat.dtype != torch.float32 else part.square(),
                self._heads,
                out=logits[start : start + rows],
            )
        reliability = torch.sigmoid(logits[:, 0]).view(features.shape[:3])
        repeatability = repeatability_from_logit(logits[:, 1]).view(features.shape[:3])
        return reliability, repeatability
