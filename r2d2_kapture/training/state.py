"""The state of a run: all that the next step depends on, in one file.

The random numbers of step n come from generators seeded by the run's seed, n and the
rank, and the pairs are a function of seed and index, so no random state is kept.
"""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.published import UNPICKLING_ERRORS

FORMAT = "r2d2_kapture training state 1"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after some step.

    Attributes:
        settings: those that decide the weights, by name.
        step: steps taken, skipped ones included.
        network: state dict of the weights that are optimised.
        average: state dict of their moving average; None where none is kept.
        optimizer: its state dict.
        objective: its state dict.
        progress: counts and the best validation so far.
    """

    settings: dict[str, Any]
    step: int
    network: dict[str, Any]
    average: dict[str, Any] | None
    optimizer: dict[str, Any]
    objective: dict[str, Any]
    progress: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Encode the state; write the bytes atomically (io.outputs.atomic)."""
        buffer = io.BytesIO()
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        torch.save({"format": FORMAT, **fields}, buffer)
        return buffer.getvalue()


def read_state(path: Path) -> RunState | None:
    """Read a state without running code; None where there is no file.

    Raises:
        CheckpointError: the file is not a complete state of a run.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        return RunState(**content)
    except UNPICKLING_ERRORS as error:
        raise CheckpointError(
            f"{path}: found no complete state of a training run "
            f"({type(error).__name__}), expected one that this version wrote; choose "
            "another --output, or --force to start anew"
        ) from error
