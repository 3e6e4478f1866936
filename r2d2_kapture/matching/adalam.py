"""The matcher ``adalam``, by kornia.

Cavalli, Larsson, Oswald, Sattler and Pollefeys, "Handcrafted Outlier Detection
Revisited", ECCV 2020: confident matches are seeds; those that no local affine map of
their surroundings supports are dropped. Orientations are not used, which our keypoints
do not have; scales are.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.config.match import AdaLamConfig
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.matching.matcher import Matcher, MatchInput
from r2d2_kapture.types import PairMatches


class AdaLam(Matcher):
    """Mutual nearest neighbours that local affine maps support.

    Raises:
        ConfigError: kornia is not installed.
    """

    settings_class: ClassVar[type] = AdaLamConfig
    needs_keypoints: ClassVar[bool] = True

    def __init__(
        self,
        settings: AdaLamConfig = AdaLamConfig(),
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self.settings = settings
        self._kornia = import_extra("kornia.feature", "kornia", "--matcher adalam")
        self._config: dict[str, Any] = {
            "area_ratio": settings.area_ratio,
            "search_expansion": settings.search_expansion,
            "min_inliers": settings.local_inliers,
            "min_confidence": settings.local_confidence,
            "scale_rate_threshold": settings.scale_rate,
            "orientation_difference_threshold": None,
            "device": device,
        }

    @torch.inference_mode()
    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        """Match two images; a score is 1 - 1 / confidence of the local map."""
        if min(len(features1.descriptors), len(features2.descriptors)) < 2:
            return PairMatches(
                indices=np.zeros((0, 2), np.int64), scores=np.zeros(0, np.float32)
            )
        inverse, indices = self._kornia.match_adalam(
            features1.descriptors,
            features2.descriptors,
            self._frames(features1),
            self._frames(features2),
            config=self._config,
            hw1=_height_width(features1),
            hw2=_height_width(features2),
        )
        described = features1.descriptors[indices[:, 0]].any(1)
        described &= features2.descriptors[indices[:, 1]].any(1)
        order = indices[:, 0].argsort()
        order = order[described[order]]
        return PairMatches(
            indices=indices[order].cpu().numpy().astype(np.int64),
            scores=(1 - inverse[order, 0]).cpu().numpy().astype(np.float32),
        )

    def _frames(self, features: MatchInput) -> Tensor:
        """(1, N, 2, 3) local affine frames without orientation."""
        if features.keypoints is None:
            raise FeatureFormatError("--matcher adalam: found descriptors alone")
        count = len(features.keypoints)
        scales = features.scales
        if scales is None or not (scales > 0).all():
            scales = torch.ones_like(features.keypoints[:, 0])
        frames: Tensor = self._kornia.laf_from_center_scale_ori(
            features.keypoints[None],
            scales.view(1, count, 1, 1),
            scales.new_zeros(1, count, 1),
        )
        return frames


def _height_width(features: MatchInput) -> tuple[int, int] | None:
    """kornia takes the extent of the keypoints where the size is not known."""
    return None if features.image_size is None else features.image_size[::-1]
