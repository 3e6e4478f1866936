"""A moving average of the weights, which extracts better than the last step's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights and of the batch norms' statistics.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
    After n updates the decay is at most (1 + n) / (10 + n), so that the random first
    weights are soon forgotten.

    Args:
        network: its weights of now are the first average.
        decay: share of the average that an update keeps, 0 to below 1.
    """

    @torch.no_grad()
    def update(
        averages: tuple[Tensor, ...] | list[Tensor],
        currents: tuple[Tensor, ...] | list[Tensor],
        updates: Tensor | int,
    ) -> None:
        count = int(updates)
        weight = 1 - min(decay, (1 + count) / (10 + count))
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, weight)
            else:  # the batch norms count their batches
                average.copy_(current)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
