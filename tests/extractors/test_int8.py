"""Int8 weights that are bundled, kept, or made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from r2d2_kapture.core import calibration
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.extractors import int8
from r2d2_kapture.extractors.int8 import int8_weights
from r2d2_kapture.models.checkpoints import load_checkpoint, stable_safetensors
from r2d2_kapture.models.files import bundled_files
from r2d2_kapture.models.int8 import (
    SUFFIX,
    Quantization,
    bundled_quantization,
    fingerprint,
    read_quantization,
    serialize_quantization,
)
from r2d2_kapture.models.network import DenseNetwork
from tests.scenes.networks import random_network


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where int8 weights are kept; pictures are few and small."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "é cache"))
    monkeypatch.setattr(int8, "PICTURES", 1)
    monkeypatch.setattr(int8, "PICTURE_SIDE", 40)
    monkeypatch.setattr(calibration, "SAMPLES", 500)
    return tmp_path / "é cache" / "r2d2_kapture" / "int8"


def data_of(network: DenseNetwork, quantization: Quantization) -> bytes:
    return serialize_quantization(quantization, fingerprint(network.ops))


def test_weights_are_made_once_and_kept_by_their_checksum(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network()
    made, warnings = int8_weights(network)
    (file,) = cache.iterdir()
    assert file.name.startswith(fingerprint(network.ops)) and not warnings

    def never(network: DenseNetwork) -> Quantization:
        raise AssertionError("made again")

    monkeypatch.setattr(int8, "calibrated", never)
    read, warnings = int8_weights(random_network())
    assert not warnings and data_of(network, read) == data_of(network, made)
    for one, other in zip(read.convolutions, made.convolutions, strict=True):
        assert (one and one.input_scale) == (other and other.input_scale)
    assert file.read_bytes() == data_of(network, made)


def test_other_weights_have_other_files(cache: Path) -> None:
    first, second = random_network(), random_network()
    with torch.no_grad():
        second.ops[0].weight[0, 0, 0, 0] += 1e-3
    int8_weights(first)
    int8_weights(second)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"not safetensors"], ids=["cut short", "other content"]
)
def test_a_damaged_file_is_made_again(cache: Path, damage: bytes) -> None:
    network = random_network()
    int8_weights(network)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage or whole[: len(whole) // 2])
    _, warnings = int8_weights(network)
    assert not warnings and file.read_bytes() == whole


@pytest.mark.parametrize("count", [-1, 0, 5])
def test_a_file_of_other_convolutions_is_made_again(cache: Path, count: int) -> None:
    """It would compute in float32 and be called int8."""
    network = random_network()
    int8_weights(network)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    with safe_open(file, framework="pt") as content:
        metadata = {**content.metadata(), "convolutions": str(count)}
    file.write_bytes(stable_safetensors(load_file(file), metadata))
    made, _ = int8_weights(network)
    assert len(made.convolutions) == 9 and file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_the_file_alone(cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file in the way")
    network = random_network()
    made, (warning,) = int8_weights(network)
    assert len(made.convolutions) == 9
    assert len(warning.splitlines()) == 1
    assert "made for this run only" in warning and str(cache.parent) in warning
    assert "$XDG_CACHE_HOME" in warning


def test_a_file_of_other_weights_is_refused(tmp_path: Path, cache: Path) -> None:
    network, other = random_network("r2d2"), random_network("fast_r2d2")
    path = tmp_path / f"made{SUFFIX}"
    path.write_bytes(data_of(network, int8_weights(network)[0]))
    with pytest.raises(CheckpointError, match="found made_for .* expected") as caught:
        read_quantization(path, fingerprint(other.ops))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_hold_everything(tmp_path: Path, cache: Path) -> None:
    network = random_network()
    made, _ = int8_weights(network)
    path = tmp_path / "made"
    path.write_bytes(data_of(network, made))
    read = read_quantization(path, fingerprint(network.ops))
    assert read.convolutions[:2] == (None, None)
    for one, other in zip(made.convolutions[2:], read.convolutions[2:]):
        assert one is not None and other is not None
        assert (one.input_scale, one.zero) == (other.input_scale, other.zero)
        for name in ("weight", "weight_scale", "bias"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("model", ["fast_r2d2_v6", "r2d2_v3", "r2d2_v2"])
def test_bundled_models_come_with_theirs(model: str, cache: Path) -> None:
    checkpoint = load_checkpoint(model)
    assert bundled_quantization(fingerprint(checkpoint.network.ops)) is not None
    assert isinstance(checkpoint.network, DenseNetwork)
    int8_weights(checkpoint.network)
    assert not cache.exists()


def test_bundled_files_are_those_of_bundled_models() -> None:
    for path in bundled_files(SUFFIX):
        network = load_checkpoint(path.stem).network
        read_quantization(path, fingerprint(network.ops))
