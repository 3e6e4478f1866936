"""One process a GPU, started by torchrun; alone without it.

Each process draws its own pairs, and takes the distractors of its AP loss from its own
batch. To gather those of the others would need an all-gather of descriptors that lets
gradients through and a similarity matrix that grows with the number of processes, while
a batch of 8 crops already gives thousands of distractors a query.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=1)
"""How long processes wait for one that validates or writes."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """This process among those that train together.

    Attributes:
        rank: its number, 0 to world_size - 1.
        world_size: how many there are.
        local_rank: its number on this machine, which is that of its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the one that validates, logs and writes."""
        return self.rank == 0

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network as one of several whose gradients are averaged."""
        if self.world_size == 1:
            return network
        return DistributedDataParallel(network)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, the same in each; NaN where one holds NaN."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values / self.world_size


def this_process() -> Process:
    """What torchrun says of this process; alone where it was started without."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(os.environ.get(name, "").isdecimal() for name in names):
        return Process()
    rank, world_size, local_rank = (int(os.environ[name]) for name in names)
    return Process(rank=rank, world_size=world_size, local_rank=local_rank)


@contextmanager
def joined(process: Process, device: torch.device) -> Iterator[None]:
    """Join the others for the block: nccl between GPUs, gloo between CPUs."""
    if process.world_size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
