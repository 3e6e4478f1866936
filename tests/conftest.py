"""Fixtures shared by the tests; what needs ../shared skips where it is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2d2_kapture.models.checkpoints import serialize_checkpoint
from r2d2_kapture.models.registry import Architecture, build_network

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


@pytest.fixture
def kapture_root(tmp_path: Path) -> Path:
    """A kapture dataset of five noise images with spaces, accents and sub-folders."""
    return write_noise_dataset(tmp_path / "dataset")


def write_noise_dataset(root: Path) -> Path:
    names = ["a.png", "b c.png", "sub/é à.png", "sub/deeper/d.png", "sub-deeper.png"]
    rng = np.random.default_rng(0)
    for name in names:
        path = root / "sensors" / "records_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
    write_records(root, names)
    return root


def write_records(root: Path, names: list[str]) -> None:
    header = "# kapture format: 1.1\n"
    sensors = "cam, , camera, PINHOLE, 64, 48, 60, 60, 31.5, 23.5\n"
    (root / "sensors").mkdir(parents=True, exist_ok=True)
    (root / "sensors" / "sensors.txt").write_text(header + sensors, encoding="utf-8")
    rows = "".join(f"{i}, cam, {name}\n" for i, name in enumerate(names))
    (root / "sensors" / "records_camera.txt").write_text(
        header + rows, encoding="utf-8"
    )
