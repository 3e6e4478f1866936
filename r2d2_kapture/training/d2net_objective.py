"""What D2-Net is trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.training.d2net_loss import D2NetLoss
from r2d2_kapture.training.forward import forward_together
from r2d2_kapture.training.loop import LOSS, PAIRS, Batch


class D2NetObjective:
    """The margin loss of D2-Net on batches of (image 1, image 2, flow).

    It has no state of its own.

    Args:
        config: settings of the loss.
        mixed: let convolutions compute in bfloat16; the loss is float32.
    """

    def __init__(self, config: D2NetTrainingConfig, *, mixed: bool) -> None:
        self._loss = D2NetLoss(config)
        self._mixed = mixed

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """The loss and its terms; nothing in it is random.

        Args:
            network: a D2Net or a replica of one.
            batch: (B, 3, H, W) images 1 and 2, preprocessed; (B, 2, H, W) position in
                image 2 of each pixel of image 1, or NaN.
            generator: not used.
        """
        image1, image2, aflow = batch
        features: Tensor = forward_together(network, image1, image2, mixed=self._mixed)
        first, second = torch.split(features, len(image1))
        terms = self._loss(first, second, aflow)
        return {
            LOSS: terms.total,
            "positive_distance": terms.positive_distance,
            "negative_distance": terms.negative_distance,
            "correspondences": terms.total.new_tensor(terms.correspondences),
            PAIRS: terms.total.new_tensor(len(image1) - terms.skipped),
            "skipped_pairs": terms.total.new_tensor(terms.skipped),
        }

    def observe(self, terms: Mapping[str, float]) -> None:
        """Nothing is learned from finished steps."""

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
