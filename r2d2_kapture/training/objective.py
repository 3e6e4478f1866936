"""What R2D2, Fast-R2D2 and D2-Net are trained for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.config.train import OptimizationConfig
from r2d2_kapture.training.d2net_loss import D2NetLoss
from r2d2_kapture.training.forward import dense_features, forward_together
from r2d2_kapture.training.loop import LOSS, PAIRS, Batch, Objective
from r2d2_kapture.training.losses import LossTerms, R2D2Loss

AP = "ap"
AP_DECAY = 0.98
"""Of the running mean of AP: it follows about the last 50 steps."""


class R2D2Objective(Objective):
    """The losses of R2D2 on batches of (image 1, image 2, flow).

    Both images pass the network together, so that batch norm sees one population. As
    long as the running mean of AP is low, the plain AP loss, where it has a weight,
    stands in for the reliability loss.

    Args:
        loss: settings of the losses.
        optimization: weight and end of the plain AP loss.
        mixed: let convolutions compute in bfloat16; the losses are float32.
    """

    def __init__(
        self, loss: LossConfig, optimization: OptimizationConfig, *, mixed: bool
    ) -> None:
        self._loss = loss
        self._optimization = optimization
        self._mixed = mixed
        self._running_ap = 0.0

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """The loss and its terms.

        Args:
            network: a DenseNetwork or a replica of one.
            batch: (B, 3, H, W) images 1 and 2, normalised; (B, 2, H, W) position in
                image 2 of each pixel of image 1, or NaN.
            generator: of the CPU.
        """
        image1, image2, aflow = batch
        first, second = dense_features(network, image1, image2, mixed=self._mixed)
        share = self.help_share
        loss = R2D2Loss(
            dataclasses.replace(
                self._loss,
                weight_reliability=(1 - share) * self._loss.weight_reliability,
            )
        )
        weight = share * self._optimization.plain_ap_weight
        terms: LossTerms = loss(first, second, aflow, generator, weight)
        figures = {
            LOSS: terms.total,
            "reliability": terms.reliability,
            "cosine": terms.cosine,
            "peaky": terms.peaky,
            AP: terms.plain_ap,
        }
        counts = {
            "plain_ap_weight": weight,
            "queries": terms.queries,
            "skipped_terms": len(terms.skipped),
        }
        return figures | {k: terms.total.new_tensor(v) for k, v in counts.items()}

    @property
    def help_share(self) -> float:
        """How much the plain AP loss stands in for the reliability loss in a step."""
        if not self._optimization.plain_ap_weight:
            return 0.0
        return help_share(
            self._running_ap,
            kappa=self._loss.ap_base,
            until=self._optimization.plain_ap_until,
        )

    def observe(self, terms: Mapping[str, float]) -> None:
        """Follow the AP of batches that had queries."""
        if terms["queries"]:
            self._running_ap += (1 - AP_DECAY) * (terms[AP] - self._running_ap)

    def state_dict(self) -> dict[str, Any]:
        """The running mean of AP."""
        return {"running_ap": self._running_ap}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the running mean of AP."""
        self._running_ap = float(state["running_ap"])


def help_share(ap: float, *, kappa: float, until: float) -> float:
    """How much the plain AP loss stands in for the reliability loss, 1 to 0.

    The reliability loss is least at R = 0 while AP is below kappa, and a reliability of
    0 hides the slope of AP. So up to an AP of kappa the plain loss stands alone, and
    then gives way in proportion.

    Args:
        ap: running mean of the average precision, 0 to 1.
        kappa: AP above which a descriptor counts as reliable.
        until: AP from which the reliability loss stands alone.
    """
    if ap >= until:
        return 0.0
    if ap <= kappa:
        return 1.0
    return (until - ap) / (until - kappa)


class D2NetObjective(Objective):
    """The margin loss of D2-Net on batches of (image 1, image 2, flow).

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
