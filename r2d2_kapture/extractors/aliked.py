"""The extractor ``aliked``, by kornia, with weights from a file.

Zhao, Wu, Chen, Chen, Xu and Li, "ALIKED: A Lighter Keypoint and Descriptor Extraction
Network via Deformable Transformation", IEEE TIM 2023.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from r2d2_kapture.config.extract import AlikedConfig
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.extractors.kornia_network import KorniaExtractor
from r2d2_kapture.models.tensors import fits

VARIANTS = ("aliked-n16", "aliked-n32", "aliked-t16")
"""Networks of different shapes; aliked-n16rot is one of the first."""


class AlikedExtractor(KorniaExtractor):
    """ALIKED, in the variant that the weights are of."""

    settings_class: ClassVar[type] = AlikedConfig
    published: ClassVar[str] = "aliked-n16.pth"

    def load(self, state: dict[str, Tensor]) -> nn.Module | None:
        kornia = import_extra("kornia.feature", "kornia", "--extractor aliked")
        for variant in VARIANTS:
            with torch.device("meta"):  # shapes first
                fitting = fits(kornia.ALIKED(variant), state)
            if fitting:
                settings = self.settings
                network: nn.Module = kornia.ALIKED(
                    variant,
                    detection_threshold=settings.threshold,
                    nms_radius=settings.nms_radius,
                )
                network.load_state_dict(state, strict=False)
                self.descriptor_dim = state["desc_head.agg_weights"].shape[-1]
                return network
        return None

    def detect(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.network(pixels)
        return found.keypoints, found.keypoint_scores, found.descriptors
