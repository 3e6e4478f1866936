"""Fixtures shared by the tests; what needs ../shared skips where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r2d2_kapture.models.checkpoints import (
    Checkpoint,
    load_checkpoint,
    serialize_checkpoint,
)
from r2d2_kapture.models.registry import Architecture, build_network
from tests.scenes.figures import save_a_pixel
from tests.scenes.kapture_files import write_noise_dataset
from tests.scenes.networks import random_d2net, save_d2net

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared of real data and reference outputs."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real data of {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained Fast-R2D2 whose maps vary enough to have maxima."""
    torch.manual_seed(0)
    architecture = Architecture(name="fast_r2d2", width=1, descriptor_dim=16)
    network = build_network(architecture)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    path.write_bytes(
        serialize_checkpoint(
            network, architecture, training={}, license_name="Apache-2.0"
        )
    )
    return path


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_path)


@pytest.fixture(scope="session")
def d2net_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_d2net(tmp_path_factory.mktemp("weights") / "d2.pth", random_d2net())


@pytest.fixture
def kapture_root(tmp_path: Path) -> Path:
    """A kapture dataset of five noise images with spaces, accents and sub-folders."""
    return write_noise_dataset(tmp_path / "dataset")


@pytest.fixture
def empty_pictures(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands and stages draw what they made, which takes a third of the time."""
    if request.node.get_closest_marker("draws") is None:
        save_a_pixel(monkeypatch)
