"""A network and an objective of a few numbers, to test the loop without images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from r2d2_kapture.training.loop import LOSS, Batch


class ToyNetwork(nn.Module):
    """Layers that keep statistics and that draw at random."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Linear(5, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class ToyObjective:
    """Fit a sum, with targets disturbed at random; it counts what it observed."""

    def __init__(self) -> None:
        self.observed = 0

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        (x,) = batch
        noise = torch.rand(len(x), generator=generator)
        error = network(x)[:, 0] - x.sum(dim=1) - 0.01 * noise
        return {LOSS: (error**2).mean(), "count": x.new_tensor(self.observed)}

    def observe(self, terms: Mapping[str, float]) -> None:
        self.observed += 1

    def state_dict(self) -> dict[str, Any]:
        return {"observed": self.observed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.observed = state["observed"]


def toy_batch(index: int) -> Tensor:
    """(4, 3) numbers, a function of the index."""
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(index))


def toy_batches(start: int = 0, poisoned: range = range(0)) -> Iterator[Batch]:
    """Batches without end from a step on; NaN where poisoned."""
    index = start
    while True:
        batch = toy_batch(index)
        yield [batch * float("nan")] if index in poisoned else [batch]
        index += 1
