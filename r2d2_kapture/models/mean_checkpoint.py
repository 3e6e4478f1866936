"""The mean of several checkpoints, a better start for training than any of them.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", ICML 2022. Checkpoints of one run, or that
were trained from the same weights, are near enough to each other for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint


def load_mean_checkpoint(models: Sequence[str | Path]) -> Checkpoint:
    """Load checkpoints by path or bundled name, with the mean of their weights.

    The statistics of batch norms are averaged, too, which only approximates those of
    the mean: training brings them up to date.

    Args:
        models: one or more; a single one is returned as it is.

    Returns:
        The first checkpoint, with the mean as its network and the SHA-256 of all, each
        in its order, joined by "+".

    Raises:
        CheckpointError: one cannot be loaded, or they are not of one kind.
    """
    first, *others = (load_checkpoint(model) for model in models)
    for other in others:
        if _kind(other) != _kind(first):
            raise CheckpointError(
                f"{other.path}: found {_kind(other)}, expected {_kind(first)} as in "
                f"{first.path}: only weights of one network have a mean"
            )
    checkpoints = [first, *others]
    states = [checkpoint.network.state_dict() for checkpoint in checkpoints]
    mean = {name: _mean([state[name] for state in states]) for name in states[0]}
    first.network.load_state_dict(mean)
    return dataclasses.replace(
        first, sha256="+".join(checkpoint.sha256 for checkpoint in checkpoints)
    )


def _kind(checkpoint: Checkpoint) -> str:
    preprocessing = checkpoint.network.preprocessing
    return f"{checkpoint.architecture}" + (f", {preprocessing}" * bool(preprocessing))


def _mean(tensors: list[Tensor]) -> Tensor:
    """Of equal shapes; of the batch norms' counters the first."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([t.double() for t in tensors]).mean(0).to(tensors[0].dtype)
