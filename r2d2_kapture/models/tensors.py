"""Tensors of published files of other projects, loaded without running code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from r2d2_kapture.errors import UNREADABLE, CheckpointError


def read_tensors(path: Path, of: str) -> dict[str, Tensor]:
    """The tensors of a file by name, or of its ``extractor``, as DISK's files have it.

    Args:
        path: of the file.
        of: whose weights are expected, for errors.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors by name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: found no complete file of weights ({type(error).__name__} while "
            f"unpickling it without running code), expected weights of {of}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("extractor"), dict):
        state = state["extractor"]
    values = state.values() if isinstance(state, dict) else ()
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise CheckpointError(
            f"{path}: found no weights of {of}, expected tensors by name"
        )
    return {str(name): value for name, value in state.items()}


def fits(network: nn.Module, state: dict[str, Tensor]) -> bool:
    """Whether a file has every parameter of a network, in its shape, and no other."""
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in state.items()}
    lacking = shapes.keys() - found.keys()
    parameters = {name for name, _ in network.named_parameters()}
    return not lacking & parameters and found.items() <= shapes.items()
