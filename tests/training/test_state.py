"""The state of a run: whole or refused, and continued with its own settings only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.training.state import RunState, read_state
from tests.scenes.pickles import Call

STATE = RunState(
    settings={"architecture": "r2d2", "seed": 3, "width": 4},
    step=7,
    network={"weight": torch.arange(6.0).reshape(2, 3)},
    average=None,
    optimizer={"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1}]},
    objective={"running_ap": 0.25},
    progress={"step": 7, "best_step": None, "best_score": float("-inf")},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.pt"
    path.write_bytes(STATE.to_bytes())
    return path


def test_a_state_comes_back_as_it_was(path: Path) -> None:
    found = read_state(path)
    assert found is not None
    assert torch.equal(found.network["weight"], STATE.network["weight"])
    for name in ("settings", "step", "average", "optimizer", "objective", "progress"):
        assert getattr(found, name) == getattr(STATE, name)


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "state.pt") is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_one_line(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="state.pt: found no complete state") as e:
        read_state(path)
    assert "\n" not in str(e.value)


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    path, folder = tmp_path / "state.pt", tmp_path / "made"
    torch.save({"format": Call(os.mkdir, str(folder))}, path)
    with pytest.raises(CheckpointError):
        read_state(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [3, {}, {"format": "another"}, {"format": "r2d2_kapture training state 1"}],
)
def test_what_is_no_state_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "state.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="choose another --output, or --force"):
        read_state(path)
