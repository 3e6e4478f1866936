"""What changes with the step: the learning rate, and the help for the reliability."""

from __future__ import annotations

import math

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
