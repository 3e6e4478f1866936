"""Batches of training pairs, the same ones whoever computes them and in what order.

Item i of a run is a function of the seed and of i alone. So a run that resumes at a
step, with another number of workers or processes, sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.training.loading import PairSource
from r2d2_kapture.training.pairs import RGBArray, TrainingPair, crop_pair

Item = tuple[Tensor, Tensor, Tensor]
Normalize = Callable[[Tensor], Tensor]
"""(B, H, W, 3) uint8 RGB to the (B, 3, H, W) float32 that a network takes."""
PAIR_TRIES = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedSource:
    """A source and how often it is drawn, relative to the others."""

    source: PairSource
    weight: float


class PairDataset(Dataset[Item]):
    """The pairs of a whole run, one after the other.

    Args:
        sources: at least one of a weight above 0.
        config: of the pairs.
        seed: of the run.
        steps: of the run.
        pairs_per_step: in the batches of all processes together.
        normalize: turns pixels to what the network takes.

    Raises:
        ConfigError: a number is below 1, or no source has a weight.
    """

    def __init__(
        self,
        sources: Sequence[WeightedSource],
        config: PairConfig,
        *,
        seed: int,
        steps: int,
        pairs_per_step: int,
        normalize: Normalize = normalize_rgb,
    ) -> None:
        require(steps >= 1, f"steps: found {steps}, expected at least 1")
        require(
            pairs_per_step >= 1,
            f"pairs_per_step: found {pairs_per_step}, expected at least 1",
        )
        used = [item for item in sources if item.weight > 0 and len(item.source)]
        require(bool(used), "sources: found no pair of a weight above 0")
        weights = np.array([item.weight for item in used])
        self._sources = [item.source for item in used]
        self._shares = weights / weights.sum()
        self.config = config
        self.seed = seed
        self.steps = steps
        self.pairs_per_step = pairs_per_step
        self._normalize = normalize

    def __len__(self) -> int:
        return self.steps * self.pairs_per_step

    def training_pair(self, index: int) -> TrainingPair:
        """Pair ``index`` of the run, as crops.

        Raises:
            DatasetError: the sources gave no pair that overlaps, many times over.
        """
        difficulty = self.config.difficulty(index // self.pairs_per_step)
        rng = np.random.default_rng([self.seed, index])
        for _ in range(PAIR_TRIES):
            source = self._sources[rng.choice(len(self._sources), p=self._shares)]
            raw = source.pair(int(rng.integers(len(source))), rng, difficulty)
            if raw is None:
                continue
            pair = crop_pair(
                raw, self.config.crop_size, rng, min_overlap=self.config.min_overlap
            )
            if pair is not None:
                return pair
        raise DatasetError(
            f"found no pair that overlaps in {PAIR_TRIES} tries; check the sources, or "
            "lower --min-overlap or --crop-size"
        )

    def __getitem__(self, index: int) -> Item:
        """Pair ``index`` for the network.

        Returns:
            Two (3, H, W) float32 images, normalised, and the (2, H, W) float32
            positions of TrainingPair.
        """
        pair = self.training_pair(index)
        aflow = torch.from_numpy(pair.aflow).permute(2, 0, 1).contiguous()
        return self._normalized(pair.image1), self._normalized(pair.image2), aflow

    def _normalized(self, image: RGBArray) -> Tensor:
        return self._normalize(torch.from_numpy(image)[None])[0]


class StepSampler(Sampler[list[int]]):
    """The indices of one process's batches, from a step to the end of the run."""

    def __init__(
        self, steps: range, batch_size: int, rank: int, world_size: int
    ) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            first = (step * self._world_size + self._rank) * self._batch_size
            yield list(range(first, first + self._batch_size))


def make_loader(
    dataset: PairDataset,
    batch_size: int,
    start_step: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Item]:
    """Load one process's batches of a run from a step on.

    It leaves torch's global random state as it is.

    Args:
        dataset: of the run.
        batch_size: of this process.
        start_step: the first step to load.
        workers: processes that make pairs; 0 makes them in this one.
        rank: of this process, from 0.
        world_size: processes that train together.

    Raises:
        ConfigError: the batches of all processes do not make up a step.
    """
    require(
        batch_size * world_size == dataset.pairs_per_step,
        f"batch_size {batch_size} x world_size {world_size}: expected the dataset's "
        f"{dataset.pairs_per_step} pairs per step",
    )
    steps = range(start_step, dataset.steps)
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(steps, batch_size, rank, world_size),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else every iteration draws from the global one
        prefetch_factor=4 if workers else None,
    )
