"""The mean of several checkpoints, which can be a better start than any of them.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
UAI 2018, for checkpoints of one run; Wortsman et al., "Model soups", ICML 2022, for
runs that began with the same weights. Weights of other origin have no useful mean.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint


def load_mean_checkpoint(models: tuple[str, ...], flag: str = "--model") -> Checkpoint:
    """Load checkpoints by path or bundled name, with the mean of their weights.

    The statistics of batch norms are averaged, too, which only approximates those of
    the mean: training brings them up to date.

    Args:
        models: one or more; a single one is returned as it is.
        flag: that asked for them, for the message where there is no such file.

    Returns:
        The mean as the network, and as the SHA-256 that of each in turn, joined by "+";
        name, path and metadata are those of the first.

    Raises:
        CheckpointError: one cannot be loaded, their networks differ, or they were
            trained with different preprocessings.
    """
    checkpoints = [load_checkpoint(model, flag) for model in models]
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _require_same("a network", first, other, first.architecture, other.architecture)
    known = [c for c in checkpoints if c.network.preprocessing is not None]
    for other in known[1:]:
        modes = (known[0].network.preprocessing, other.network.preprocessing)
        _require_same("a preprocessing", known[0], other, *modes)
    states = [checkpoint.network.state_dict() for checkpoint in checkpoints]
    mean = {name: _mean([state[name] for state in states]) for name in states[0]}
    first.network.load_state_dict(mean)
    if known:
        first.network.preprocessing = known[0].network.preprocessing
    return dataclasses.replace(
        first, sha256="+".join(checkpoint.sha256 for checkpoint in checkpoints)
    )


def _require_same(
    what: str, first: Checkpoint, other: Checkpoint, expected: object, found: object
) -> None:
    if found != expected:
        raise CheckpointError(
            f"{other.path}: found {found}, expected {expected} as in {first.path}: "
            f"only weights that share {what} have a mean"
        )


def _mean(tensors: list[Tensor]) -> Tensor:
    """Of equal shapes; of the batch norms' counters the first."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([t.double() for t in tensors]).mean(0).to(tensors[0].dtype)
