"""Networks with seeded random weights, and their checkpoints."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.models.registry import Architecture, build_network

NAMES = ("r2d2", "fast_r2d2")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_network(
    name: str = "r2d2", *, width: int = 1, descriptor_dim: int = 16
) -> DenseNetwork:
    """An untrained network in evaluation mode whose maps vary from pixel to pixel.

    The batch norms hold statistics of noise, disturbed at random, so that none is the
    identity and activations stay near 1.
    """
    return copy.deepcopy(_random_network(name, width, descriptor_dim))


@functools.cache
def _random_network(name: str, width: int, descriptor_dim: int) -> DenseNetwork:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_network(
            Architecture(name=name, width=width, descriptor_dim=descriptor_dim)
        )
        norms = [op for op in network.ops if isinstance(op, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        noise = torch.randn(1, 3, 64, 64)
        network.train()(noise)
        for norm in norms:
            norm.momentum = 0.1
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean += 0.2 * torch.randn_like(norm.running_mean)
            norm.running_var *= 0.7 + 0.6 * torch.rand_like(norm.running_var)
        last = [op for op in network.ops if isinstance(op, nn.Conv2d)][-1]
        last.weight /= network.eval().ops(noise).std()
        for head in (network.clf, network.sal):
            head.weight.normal_(0, 0.25)
    return network.eval().requires_grad_(False)


def published_tensors(network: DenseNetwork) -> dict[str, torch.Tensor]:
    """A state dict on its own storage, as a published checkpoint holds it."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def save_published(
    path: Path,
    state_dict: object,
    net: object,
    *,
    zip_format: bool = True,
    **extra: object,
) -> Path:
    """Write a pickled checkpoint of the published layout."""
    torch.save(
        {"net": net, "state_dict": state_dict, **extra},
        path,
        _use_new_zipfile_serialization=zip_format,
    )
    return path


@functools.cache
def _random_d2net(width: int, descriptor_dim: int) -> D2Net:
    generator = torch.Generator().manual_seed(0)
    network = D2Net(width=width, descriptor_dim=descriptor_dim)
    with torch.no_grad():
        for parameter in network.parameters():
            deviation = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(
                deviation * torch.randn(parameter.shape, generator=generator)
            )
    return network.eval().requires_grad_(False)


def random_d2net(width: int = 2, descriptor_dim: int = 16) -> D2Net:
    """An untrained D2-Net in evaluation mode, whose features keep their size."""
    return copy.deepcopy(_random_d2net(width, descriptor_dim))


def save_d2net(path: Path, network: D2Net, **extra: object) -> Path:
    """Write a pickled checkpoint of D2-Net's published layout."""
    tensors = {
        f"dense_feature_extraction.model.{name.removeprefix('ops.')}": value.clone()
        for name, value in network.state_dict().items()
    }
    torch.save({"model": tensors, **extra}, path)
    return path


def load_error(path: str | Path) -> str:
    """The message of the refusal of a checkpoint, which must be one line."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def assert_same_weights(found: nn.Module, expected: nn.Module) -> None:
    """Equal to the bit."""
    tensors = found.state_dict()
    assert tensors.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(tensors[name], value), name
