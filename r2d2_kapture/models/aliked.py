"""ALIKED's networks, by kornia, with the weights of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.tensors import fits, read_tensors

VARIANTS = ("aliked-n16", "aliked-n32", "aliked-t16")
"""Networks of different shapes; aliked-n16rot is one of the first."""


def load_aliked(path: Path, asked_by: str, **settings: Any) -> nn.Module:
    """The network of the variant that a file's weights are of, in evaluation mode.

    Args:
        path: of the weights.
        asked_by: flag that needs kornia, for the error.
        settings: of kornia's ALIKED.

    Raises:
        ConfigError: kornia is not installed.
        CheckpointError: a file that is none of its weights.
    """
    kornia = import_extra("kornia.feature", "kornia", asked_by)
    state = read_tensors(path, "aliked")
    for variant in VARIANTS:
        with torch.device("meta"):  # shapes first
            fitting = fits(kornia.ALIKED(variant), state)
        if fitting:
            network: nn.Module = kornia.ALIKED(variant, **settings)
            network.load_state_dict(state, strict=False)
            return network.eval().requires_grad_(False)
    raise CheckpointError(
        f"{path}: found no weights of aliked, expected those of aliked-n16.pth"
    )
