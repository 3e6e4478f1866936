"""The mean of the weights of several checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.mean_checkpoint import load_mean_checkpoint
from r2d2_kapture.models.registry import Architecture, build_network
from tests.scenes.networks import assert_same_weights


def save(
    path: Path,
    seed: int,
    name: str = "fast_r2d2",
    width: int = 1,
    preprocessing: str | None = None,
) -> str:
    architecture = Architecture(name=name, width=width, descriptor_dim=16)
    torch.manual_seed(seed)
    network = build_network(architecture)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("num_batches_tracked"):
                tensor.fill_(seed)
            else:
                tensor.copy_(torch.rand(tensor.shape) + 0.1)
    training = {"preprocessing": preprocessing} if preprocessing else {}
    path.write_bytes(
        serialize_checkpoint(
            network, architecture, training=training, license_name="CC0"
        )
    )
    return str(path)


def test_weights_and_statistics_are_averaged(tmp_path: Path) -> None:
    paths = tuple(save(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2, 3))
    checkpoints = [load_checkpoint(path) for path in paths]
    states = [checkpoint.network.state_dict() for checkpoint in checkpoints]
    mean = load_mean_checkpoint(paths)
    assert mean.architecture == checkpoints[0].architecture
    assert mean.sha256 == "+".join(checkpoint.sha256 for checkpoint in checkpoints)
    for name, tensor in mean.network.state_dict().items():
        if tensor.is_floating_point():
            expected = (states[0][name] + states[1][name] + states[2][name]) / 3
            torch.testing.assert_close(tensor, expected)
        else:
            assert torch.equal(tensor, states[0][name])


def test_one_checkpoint_is_as_it_is_and_a_missing_one_reported(tmp_path: Path) -> None:
    path = save(tmp_path / "one.safetensors", 1)
    one, mean = load_checkpoint(path), load_mean_checkpoint((path,))
    assert mean.sha256 == one.sha256
    assert_same_weights(mean.network, one.network)
    with pytest.raises(CheckpointError, match="^--start-from /no.pt: found no such"):
        load_mean_checkpoint(("/no.pt",), "--start-from")


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        ({}, {"name": "r2d2"}, "share a network"),
        ({}, {"width": 2}, "share a network"),
        (
            {"name": "d2net", "preprocessing": "caffe"},
            {"name": "d2net", "preprocessing": "torch"},
            "found torch, expected caffe .* share a preprocessing",
        ),
    ],
)
def test_weights_of_another_kind_are_refused(
    tmp_path: Path, first: dict[str, Any], other: dict[str, Any], message: str
) -> None:
    one = save(tmp_path / "first.safetensors", 1, **first)
    two = save(tmp_path / "second.safetensors", 2, **other)
    with pytest.raises(CheckpointError, match=f"^{two}: found .* as in {one}.*have a"):
        load_mean_checkpoint((one, two))
    with pytest.raises(CheckpointError, match=message):
        load_mean_checkpoint((one, two))


def test_a_known_preprocessing_holds_for_the_mean(tmp_path: Path) -> None:
    known = save(tmp_path / "1.safetensors", 1, name="d2net", preprocessing="torch")
    other = save(tmp_path / "2.safetensors", 2, name="d2net")
    for models in ((known, other), (other, known)):
        assert load_mean_checkpoint(models).network.preprocessing == "torch"
