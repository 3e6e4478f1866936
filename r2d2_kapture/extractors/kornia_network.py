"""What extractors by kornia share: a network, and its weights from a file."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from r2d2_kapture.core.extraction import Found, Image, WholeExtractor
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.models.files import Weights
from r2d2_kapture.types import PATCH_DIAMETER


class KorniaExtractor(WholeExtractor):
    """An extractor by a network of kornia, in float32.

    Raises:
        ConfigError: kornia is not installed.
        CheckpointError: a file that is none of its weights.
    """

    descriptor_dim = 128

    def __init__(self, settings: Any, weights: Weights, runtime: Runtime) -> None:
        super().__init__(settings, weights, runtime)
        self.network = self.load(weights.path).to(runtime.device)

    @abstractmethod
    def load(self, path: Path) -> nn.Module:
        """The network with the weights of a file, in evaluation mode."""

    @abstractmethod
    def detect(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places (x, y), scores and descriptors of (1, 3, H, W) RGB, 0 to 1."""

    def find(self, image: Image) -> Found:
        """Keypoints; patches have R2D2's side, as the network has no scales."""
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        pixels = pixels.to(self.runtime.device).permute(2, 0, 1)[None] / 255
        xy, scores, descriptors = self.detect(pixels)
        sides = torch.full_like(scores, PATCH_DIAMETER)
        return Found(xy=xy, sides=sides, scores=scores, descriptors=descriptors)
