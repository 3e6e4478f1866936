"""The extractor ``aliked``, by kornia, with weights from a file.

Zhao, Wu, Chen, Chen, Xu and Li, "ALIKED: A Lighter Keypoint and Descriptor Extraction
Network via Deformable Transformation", IEEE TIM 2023.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from r2d2_kapture.config.extract import AlikedConfig
from r2d2_kapture.extractors.kornia_network import KorniaExtractor
from r2d2_kapture.models.aliked import load_aliked


class AlikedExtractor(KorniaExtractor):
    """ALIKED, in the variant that the weights are of."""

    settings_class: ClassVar[type] = AlikedConfig

    def load(self, path: Path) -> nn.Module:
        network = load_aliked(
            path,
            "--extractor aliked",
            detection_threshold=self.settings.threshold,
            nms_radius=self.settings.nms_radius,
        )
        weights = network.state_dict()["desc_head.agg_weights"]
        self.descriptor_dim = weights.shape[-1]
        return network

    def detect(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.network(pixels)
        return found.keypoints, found.keypoint_scores, found.descriptors
