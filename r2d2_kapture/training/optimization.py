"""The learning rate of a step, and a moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from r2d2_kapture.config.train import OptimizationConfig


def learning_rate(step: int, total_steps: int, config: OptimizationConfig) -> float:
    """Learning rate of a step: a linear warm-up, then constant or a half cosine.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR
    2017, equation 5, without restarts.

    Args:
        step: counted from 0.
        total_steps: of the whole run; beyond it the cosine stays at its end.
        config: highest rate, warm-up and shape.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    fall = (1 + math.cos(math.pi * min(progress, 1))) / 2
    share = config.final_learning_rate + (1 - config.final_learning_rate) * fall
    return config.learning_rate * share


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights and of the batch norms' statistics.

    It extracts better than the weights of the last step. Polyak and Juditsky,
    "Acceleration of Stochastic Approximation by Averaging", 1992. After n updates the
    decay is at most (1 + n) / (10 + n), so that the random first weights are soon
    forgotten.

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
