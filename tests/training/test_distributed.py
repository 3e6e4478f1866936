"""Two processes over gloo: the same weights, the mean gradient, common decisions."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from r2d2_kapture.config.train import OptimizationConfig
from r2d2_kapture.training.distributed import Process, joined, this_process
from r2d2_kapture.training.loop import Trainer
from tests.training.toy import ToyObjective, toy_batch

OPTIMIZATION = OptimizationConfig(learning_rate=0.1, weight_decay=0.0)
STEPS = 4
STOP_STEP, POISONED_STEP = 1, 2


class PlainObjective(ToyObjective):
    """Without noise, so that the mean over processes is that over one large batch."""

    def __call__(self, network, batch, generator):  # type: ignore[no-untyped-def]
        (x,) = batch
        return {"loss": ((network(x)[:, 0] - x.sum(dim=1)) ** 2).mean()}


def new_trainer(process: Process = Process()) -> Trainer[nn.Linear]:
    torch.manual_seed(process.rank)  # replicas take the weights of rank 0
    return Trainer(nn.Linear(3, 1), PlainObjective(), OPTIMIZATION, STEPS, {}, process)


def batch_of(step: int, rank: int) -> torch.Tensor:
    batch = toy_batch(2 * step + rank)
    return batch * math.nan if (step, rank) == (POISONED_STEP, 1) else batch


def train_one(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    process = this_process()
    with joined(process, torch.device("cpu")):
        trainer = new_trainer(process)
        results = [
            trainer.step(
                [batch_of(step, rank)],
                stop_requested=(step, rank) == (STOP_STEP, 1),
            )
            for step in range(STEPS)
        ]
    torch.save(
        {
            "weights": trainer.network.state_dict(),
            "applied": [result.applied for result in results],
            "stop": [result.stop for result in results],
            "losses": [result.values["loss"] for result in results],
        },
        Path(folder) / f"{rank}.pt",
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_processes_train_as_one_on_both_batches(tmp_path: Path) -> None:
    multiprocessing.spawn(train_one, (free_port(), str(tmp_path)), nprocs=2)
    first, second = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name])

    alone = new_trainer()
    losses = []
    for step in range(STEPS):
        both = torch.cat([batch_of(step, 0), batch_of(step, 1)])
        losses.append(alone.step([both]).values["loss"])
    for name, tensor in alone.network.state_dict().items():
        assert torch.allclose(tensor, first["weights"][name], atol=1e-6)
    assert first["losses"] == pytest.approx(losses, rel=1e-5, nan_ok=True)

    for found in (first, second):  # what one meets, both do
        assert found["applied"] == [True, True, False, True]
        assert found["stop"] == [False, True, False, False]


def test_alone_nothing_is_joined_or_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    process = this_process()
    assert process == Process() and process.is_main
    network = nn.Linear(1, 1)
    with joined(process, torch.device("cpu")):
        assert not torch.distributed.is_initialized()
        assert process.replicate(network) is network
        assert process.mean(torch.tensor([2.0])).tolist() == [2.0]


def test_torchrun_sets_rank_and_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    process = this_process()
    assert (process.rank, process.world_size, process.local_rank) == (5, 8, 1)
    assert not process.is_main
