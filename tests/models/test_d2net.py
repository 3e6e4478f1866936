"""D2-Net: layers, receptive field, and its checkpoints of four layouts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.models.registry import Architecture
from tests.scenes.networks import (
    assert_same_weights,
    load_error,
    random_d2net,
    save_d2net,
)
from tests.scenes.pickles import Call

TINY = Architecture(name="d2net", width=2, descriptor_dim=16)
CONVOLUTIONS_OF_VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
LATER_LAYERS = ("features.24.weight", "features.28.bias", "classifier.0.weight")


def vgg_tensors(network: D2Net) -> dict[str, Tensor]:
    """A state dict with the names of torchvision, and layers after conv4_3."""
    tensors = {
        name.replace("ops.", "features."): value.clone()
        for name, value in network.state_dict().items()
    }
    return tensors | {name: torch.zeros(3) for name in LATER_LAYERS}


def test_the_published_network_is_vgg16_up_to_conv4_3() -> None:
    network = D2Net()
    convolutions = {
        i: op for i, op in enumerate(network.ops) if isinstance(op, torch.nn.Conv2d)
    }
    assert tuple(convolutions) == CONVOLUTIONS_OF_VGG16
    outputs = [op.out_channels for op in convolutions.values()]
    assert outputs == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512]
    dilations = [op.dilation[0] for op in convolutions.values()]
    assert dilations == [1] * 7 + [2] * 3
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 7_635_264  # of the 14 714 688 of VGG16's convolutions
    assert network.descriptor_dim == 512


@pytest.mark.parametrize(
    "size, expected", [((8, 8), (1, 1)), ((40, 44), (9, 10)), ((43, 47), (9, 10))]
)
def test_maps_have_a_quarter_of_the_size_less_one(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    network = random_d2net()
    features = network(torch.randn(2, 3, *size))
    assert features.shape == (2, 16, *expected)
    assert float(features.min()) >= 0
    assert network.pixel_stride == 4


@pytest.mark.parametrize("pixel", [(80, 80), (82, 83), (79, 81)])
def test_halo_is_what_one_pixel_can_reach(pixel: tuple[int, int]) -> None:
    network = random_d2net().double()
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, 160, 164, generator=generator).double()
    changed = image.clone()
    changed[0, :, pixel[0], pixel[1]] += 5
    difference = network.ops(changed) - network.ops(image)
    cells = torch.nonzero(difference[0].abs().amax(dim=0))
    # a cell at the edge of the halo sees the pixels at its far end
    first, last = cells.amin(dim=0) * 4, cells.amax(dim=0) * 4 + 3
    place = torch.tensor(pixel)
    assert int((place - first).max()) <= network.halo
    assert int((last - place).max()) <= network.halo
    assert int((last - first).max()) > network.halo


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_files_load(tmp_path: Path, prefix: str) -> None:
    network = random_d2net()
    path = save_d2net(tmp_path / "d2_tf.pth", network)
    state = torch.load(path)["model"]
    options = argparse.Namespace(lr=1e-3, plot=True)
    torch.save(
        {
            "model": {f"{prefix}{name}": value for name, value in state.items()},
            "args": options,
            "epoch_idx": 3,
            "train_loss_history": [0.5],
        },
        path,
    )
    found = load_checkpoint(path)
    assert found.name == "d2_tf"
    assert found.architecture == TINY
    assert found.metadata == {}
    assert not found.network.training
    assert_same_weights(found.network, network)


@pytest.mark.parametrize(
    "history",
    [
        [np.float64(1.5), np.float32(0.5), np.int64(3), np.bool_(True)],
        np.arange(3.0),
    ],
    ids=["numbers", "array"],
)
@pytest.mark.parametrize("core", [b"numpy._core.", b"numpy.core."])
def test_losses_of_numpy_next_to_the_weights_are_passed_over(
    tmp_path: Path, history: object, core: bytes
) -> None:
    path = tmp_path / "a.pth"
    tensors = vgg_tensors(random_d2net())
    content = {"model": tensors, "train_loss_history": history}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    # NumPy 2 names its modules otherwise than NumPy 1
    data = path.read_bytes()
    assert b"numpy._core." in data or b"numpy.core." in data
    path.write_bytes(data.replace(b"numpy._core.", core).replace(b"numpy.core.", core))
    assert_same_weights(load_checkpoint(path).network, random_d2net())


def test_a_memory_layout_in_a_file_is_not_taken(tmp_path: Path) -> None:
    """NumPy would read 8 bytes 2**40 bytes behind the only one there is."""
    fields = {"a": (np.dtype("f8"), 2**40)}
    layout = (3, "|", None, ("a",), fields, 1, 1, 0)
    lying = Call(np.dtype, "V1", False, True, state=layout)
    make_number = np.float64(1).__reduce__()[0]
    scalar = Call(make_number, lying, b"x")
    path = save_d2net(tmp_path / "a.pth", random_d2net(), history=[scalar])
    assert_same_weights(load_checkpoint(path).network, random_d2net())


def test_numbers_of_numpy_and_repeated_ones_are_no_weights(tmp_path: Path) -> None:
    tensors = {**vgg_tensors(random_d2net()), "features.7.bias": np.float64(1)}
    torch.save(tensors, tmp_path / "a.pth")
    assert "not a dict of named tensors" in load_error(tmp_path / "a.pth")
    tensors = vgg_tensors(random_d2net())
    repeated = torch.zeros(1).expand_as(tensors["features.7.bias"])
    torch.save({**tensors, "features.7.bias": repeated}, tmp_path / "a.pth")
    assert "each of them stored" in load_error(tmp_path / "a.pth")


def test_weights_may_lie_in_memory_in_any_order(tmp_path: Path) -> None:
    network = random_d2net()
    tensors = vgg_tensors(network)
    last = tensors["features.21.weight"].contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    torch.save({**tensors, "features.21.weight": last}, tmp_path / "a.pth")
    found = load_checkpoint(tmp_path / "a.pth").network
    assert_same_weights(found, network)
    assert all(value.is_contiguous() for value in found.state_dict().values())


def test_vgg16_loads_without_its_later_layers_and_is_written_in_our_format(
    tmp_path: Path,
) -> None:
    network = random_d2net()
    torch.save(vgg_tensors(network), tmp_path / "vgg16.pth")
    found = load_checkpoint(tmp_path / "vgg16.pth")
    assert found.architecture == TINY
    assert found.metadata["ignored"].split(", ") == sorted(LATER_LAYERS)
    assert_same_weights(found.network, network)
    data = serialize_checkpoint(network, TINY, training={}, license_name="CC-BY-4.0")
    (tmp_path / "my.safetensors").write_bytes(data)
    found = load_checkpoint(tmp_path / "my.safetensors")
    assert found.architecture == TINY
    assert_same_weights(found.network, network)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("features.0.weight", None, "features.0.weight: found none"),
        ("features.21.weight", torch.zeros(3), "found shape (3,)"),
        ("features.7.bias", None, "misses ops.7.bias"),
        ("features.7.bias", torch.zeros(3), "found shape (3,), expected (4,)"),
        ("features.7.bias", torch.full((4,), torch.nan), "not finite"),
        ("features.1.running_mean", torch.zeros(2), "has unexpected ops.1.running"),
        ("features.16.weight", torch.zeros(2), "has unexpected ops.16.weight"),  # VGG19
        ("fc.weight", torch.zeros(2), "has unexpected fc.weight"),
        # a small file cannot ask for a huge network
        ("features.0.weight", torch.zeros(1024, 3, 3, 3), "found shape"),
    ],
)
def test_other_layers_than_those_of_vgg16_are_named(
    tmp_path: Path, name: str, value: Tensor | None, message: str
) -> None:
    state = {**vgg_tensors(random_d2net()), name: value}
    if value is None:
        del state[name]
    torch.save(state, tmp_path / "a.pth")
    assert message in load_error(tmp_path / "a.pth")


def test_something_else_or_the_half_of_it_is_refused(tmp_path: Path) -> None:
    path = save_d2net(tmp_path / "a.pth", random_d2net())
    data = path.read_bytes()
    for length in (0, 10, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert load_error(path).startswith(str(path))
    for content in ({}, {"model": 3}, {"model": {}}, {"features": 1}):
        torch.save(content, path)
        assert load_error(path).startswith(str(path))


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    evil = argparse.Namespace(lr=Call(os.system, f"touch {proof}"))
    path = save_d2net(tmp_path / "a.pth", random_d2net(), args=evil)
    assert "without running code" in load_error(path)
    assert not proof.exists()
