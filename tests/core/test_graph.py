"""The layers of a network as plain data, and as a model of ONNX."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from r2d2_kapture.core.graph import Convolution, Pooling, Upsampling, folded_layers
from r2d2_kapture.core.onnx_layers import INPUT, OUTPUT, onnx_model
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.models.network import FeatureNetwork
from tests.engines import library
from tests.scenes.networks import NAMES, random_network


def network(name: str) -> FeatureNetwork:
    if name != "d2net":
        return random_network(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return D2Net(width=2, descriptor_dim=16).eval().requires_grad_(False)


def run_onnx(ops: nn.Sequential, images: Tensor) -> Tensor:
    runtime = library("onnxruntime")
    model = onnx_model(folded_layers(ops)).SerializeToString()
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


@pytest.mark.parametrize("name", [*NAMES, "d2net"])
@pytest.mark.parametrize("shape", [(1, 40, 48), (2, 41, 47), (1, 9, 70)])
def test_the_model_computes_what_the_network_computes(
    name: str, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, height, width, generator=generator)
    ops = network(name).ops
    torch.testing.assert_close(run_onnx(ops, images), ops(images), rtol=0, atol=1e-4)


def test_fast_r2d2_folds_into_convolutions_a_pooling_and_an_upsampling() -> None:
    layers = folded_layers(network("fast_r2d2").ops)
    kinds = [type(layer) for layer in layers]
    assert kinds == [Convolution] * 3 + [Pooling] + [Convolution] * 6 + [Upsampling]
    activations = [layer.relu for layer in layers if isinstance(layer, Convolution)]
    assert activations == [True] * 6 + [False] * 3
    assert layers[3] == Pooling(kind="max", size=2, stride=2)
    assert layers[-1] == Upsampling(factor=2)


@pytest.mark.parametrize(
    "layer",
    [nn.Sigmoid(), nn.BatchNorm2d(3), nn.Upsample(scale_factor=2, mode="nearest")],
)
def test_layers_that_no_network_of_the_package_has_are_refused(
    layer: nn.Module,
) -> None:
    with pytest.raises(ConfigError, match=f"found a layer {type(layer).__name__}"):
        folded_layers(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), layer))
