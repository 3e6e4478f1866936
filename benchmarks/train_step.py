"""Speed of a training step against the straightforward formulation.

    python benchmarks/train_step.py

Both do the same step (two forward passes, losses, backward pass) on the same batch, in
bfloat16 with channels-last maps, each in a process of its own, in turn, several times.
Ours keeps its heap as the training command does; how much of the gain is due to that is
shown by a third way. Losses and gradients are compared first.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from measure import machine
from plain_losses import plain_forward, plain_loss
from torch import Tensor

from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.core.allocator import keep_heap
from r2d2_kapture.models.network import DenseFeatures, DenseNetwork
from r2d2_kapture.models.registry import Architecture, build_network
from r2d2_kapture.training.losses import LossTerms, R2D2Loss
from r2d2_kapture.training.sampler import sample_pixels

# flow beyond the image is read at the border, which plain_losses does too
CONFIG = LossConfig(query_grid="grid", warp_outside="border")

Forward = Callable[[DenseNetwork, Tensor], DenseFeatures]
Loss = Callable[[DenseFeatures, DenseFeatures, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is measured: a network and a batch of crops."""

    network: str
    width: int
    batch: int
    size: int
    device: str
    repeats: int
    clock: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pairs of images (B, 3, H, W) and the flow (B, 2, H, W) between them."""

    image1: Tensor
    image2: Tensor
    aflow: Tensor


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of the parts of one step."""

    forward: float
    losses: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.losses + self.backward


def main() -> None:
    """Compare both formulations, then time them on each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["fast_r2d2", "r2d2"])
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=192, help="side of the crops")
    parser.add_argument("--repeats", type=int, default=1, help="steps of a process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each way")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu counts processor seconds: for busy machines, with OMP_NUM_THREADS=1",
    )
    options = parser.parse_args()
    print(machine())
    for name in options.networks:
        task = Task(
            network=name,
            width=options.width,
            batch=options.batch,
            size=options.size,
            device=options.device,
            repeats=options.repeats,
            clock=options.clock,
        )
        print_differences(task)
        times: dict[str, list[StepTime]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                times[way] += in_new_process(way, task)
        print_times(name, times)


def in_new_process(way: str, task: Task) -> list[StepTime]:
    """Times of the steps of one process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(time_steps, way, task).result()


def time_steps(way: str, task: Task) -> list[StepTime]:
    """Repeat a step, after one that warms up."""
    forward, loss, keeps_heap = WAYS[way]
    if keeps_heap:
        keep_heap()
    network, batch = make_network(task), make_batch(task)
    steps = [
        time_step(network, batch, forward, loss, task.clock)
        for _ in range(task.repeats + 1)
    ]
    return steps[1:]


def make_network(task: Task) -> DenseNetwork:
    """The untrained network, with the same weights every time."""
    torch.manual_seed(0)
    network = build_network(Architecture(name=task.network, width=task.width))
    if not isinstance(network, DenseNetwork):
        raise ValueError(f"{task.network}: expected a network of R2D2")
    network.to(  # type: ignore[call-overload]
        task.device, memory_format=torch.channels_last
    )
    return network


def make_batch(task: Task) -> Batch:
    """Images of smooth noise and the same turned by 10 degrees and enlarged by 1.1."""
    size, side, device = task.batch, task.size, torch.device(task.device)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(size, 3, side // 4, side // 4, generator=generator)
    image1 = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    angle = math.radians(10)
    turn = 1.1 * torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    position = torch.stack([x, y], dim=2)
    back = (position @ torch.linalg.inv(turn).t()).expand(size, -1, -1, -1)
    image2 = F.grid_sample(image1, back, padding_mode="reflection", align_corners=True)
    flow = (position @ turn.t() + 1) * ((side - 1) / 2)
    aflow = flow.permute(2, 0, 1).expand(size, -1, -1, -1)
    return Batch(
        image1=image1.to(device, memory_format=torch.channels_last),
        image2=image2.to(device, memory_format=torch.channels_last),
        aflow=aflow.contiguous().to(device),
    )


def ours(features1: DenseFeatures, features2: DenseFeatures, aflow: Tensor) -> Tensor:
    """The loss as training computes it."""
    terms: LossTerms = R2D2Loss(CONFIG)(features1, features2, aflow)
    return terms.total


def straightforward(
    features1: DenseFeatures, features2: DenseFeatures, aflow: Tensor
) -> Tensor:
    """The same loss, on the same queries, written down from the papers."""
    height, width = aflow.shape[2:]
    pixels = sample_pixels(aflow, CONFIG).queries
    queries = (pixels // (height * width), pixels // width % height, pixels % width)
    return torch.stack(plain_loss(features1, features2, aflow, queries, CONFIG)).sum()


def time_step(
    network: DenseNetwork, batch: Batch, forward: Forward, loss: Loss, clock: str
) -> StepTime:
    """One step, without the optimiser."""
    network.zero_grad()
    device = batch.aflow.device
    marks = [now(device, clock)]
    with torch.autocast(device.type, torch.bfloat16):
        features1 = forward(network, batch.image1)
        features2 = forward(network, batch.image2)
    marks.append(now(device, clock))
    total = loss(features1, features2, batch.aflow)
    marks.append(now(device, clock))
    total.backward()  # type: ignore[no-untyped-call]
    marks.append(now(device, clock))
    parts = [after - before for before, after in zip(marks, marks[1:])]
    return StepTime(forward=parts[0], losses=parts[1], backward=parts[2])


def now(device: torch.device, clock: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() if clock == "wall" else time.process_time()


def print_differences(task: Task) -> None:
    """Largest relative differences of the loss and of the gradients of the maps, for
    the first pairs of the batch."""
    few = slice(0, 2)
    network, batch = make_network(task), make_batch(task)
    with torch.no_grad():
        maps = [network(image[few]) for image in (batch.image1, batch.image2)]
    for dtype in (torch.float32, torch.float64):
        losses, gradients = [], []
        for loss in (straightforward, ours):
            leaves = [values.to(dtype).requires_grad_() for m in maps for values in m]
            total = loss(
                DenseFeatures(*leaves[:3]),
                DenseFeatures(*leaves[3:]),
                batch.aflow[few].to(dtype),
            )
            losses.append(total.item())
            gradients.append(torch.autograd.grad(total, leaves))
        worst = max(
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(*gradients)
        )
        print(
            f"{task.network:9s} {dtype}: relative difference of the loss "
            f"{abs(losses[1] / losses[0] - 1):.1e}, of the gradients {worst:.1e}"
        )


def print_times(name: str, times: dict[str, list[StepTime]]) -> None:
    """Medians of the parts, the spread of the whole, and the ratio to ours."""
    medians = {
        way: statistics.median(step.total for step in steps)
        for way, steps in times.items()
    }
    for way, steps in times.items():
        totals = [step.total for step in steps]
        parts = " ".join(
            f"{part} {statistics.median(getattr(step, part) for step in steps):5.2f}"
            for part in ("forward", "losses", "backward")
        )
        print(
            f"{name:9s} {way:26s} {medians[way]:6.2f} s a step "
            f"({min(totals):.2f}-{max(totals):.2f}): {parts}; "
            f"{medians[way] / medians['ours']:.2f} times ours"
        )


WAYS: dict[str, tuple[Forward, Loss, bool]] = {
    "straightforward": (plain_forward, straightforward, False),
    "straightforward, heap kept": (plain_forward, straightforward, True),
    "ours": (DenseNetwork.__call__, ours, True),
}
"""How the maps are computed, and the loss, and whether the heap is kept."""


if __name__ == "__main__":
    main()
