"""The extractor ``disk``, by kornia, with weights from a file.

Tyszkiewicz, Fua and Trulls, "DISK: Learning Local Features with Policy Gradient",
NeurIPS 2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from r2d2_kapture.config.extract import DiskConfig
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.extractors.kornia_network import KorniaExtractor
from r2d2_kapture.models.tensors import fits, read_tensors

STRIDE = 16
"""Pixels of an image from one cell of the network's coarsest map to the next."""


class DiskExtractor(KorniaExtractor):
    """DISK."""

    settings_class: ClassVar[type] = DiskConfig

    def load(self, path: Path) -> nn.Module:
        kornia = import_extra("kornia.feature", "kornia", "--extractor disk")
        network: nn.Module = kornia.DISK()
        state = read_tensors(path, self.name)
        if not fits(network, state):
            raise CheckpointError(
                f"{path}: found no weights of disk, expected those of depth-save.pth"
            )
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def detect(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if max(pixels.shape[2:]) <= STRIDE:  # which instance norm refuses
            none = pixels.new_zeros(0)
            return none.view(0, 2), none, none.view(0, self.descriptor_dim)
        (found,) = self.network(
            pixels,
            window_size=self.settings.window,
            score_threshold=self.settings.threshold,
            pad_if_not_divisible=True,
        )
        return found.keypoints, found.detection_scores, found.descriptors
