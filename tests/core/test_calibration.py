"""Int8 weights: what they compute, in torch and in both runtimes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from r2d2_kapture.core import calibration
from r2d2_kapture.core.calibration import calibrate, run_layers
from r2d2_kapture.core.dead_leaves import draw_leaves
from r2d2_kapture.core.graph import Convolution, FoldedLayer, folded_layers
from r2d2_kapture.core.onnx_layers import INPUT, OUTPUT, onnx_model
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.models.int8 import WEIGHT_LIMIT, Int8Convolution, Quantization
from tests.engines import library
from tests.scenes.networks import NAMES, random_network

Run = Callable[[Any, Tensor], Tensor]


@pytest.fixture(scope="module", autouse=True)
def few_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "SAMPLES", 2000)
        yield


def by_onnxruntime(model: Any, images: Tensor) -> Tensor:
    runtime = library("onnxruntime")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def by_openvino(model: Any, images: Tensor) -> Tensor:
    openvino = library("openvino")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    read = core.read_model(model.SerializeToString())
    compiled = core.compile_model(read, "CPU", settings)
    return torch.from_numpy(np.array(compiled([images.numpy()])[0]))


RUNTIMES = pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])


def pictures(count: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    return normalize_rgb(torch.from_numpy(draw_leaves(count, side, seed)))


def quantized(name: str) -> tuple[list[FoldedLayer], Quantization]:
    """Layers in float32 and in int8, which no test changes."""
    layers = folded_layers(random_network(name, width=2).ops)
    return layers, _calibrated(name)


@functools.cache
def _calibrated(name: str) -> Quantization:
    layers = folded_layers(random_network(name, width=2).ops)
    return calibrate(layers, pictures())


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.std())


def single(int8: Int8Convolution, relu: bool) -> list[FoldedLayer]:
    size = int8.weight.shape
    return [
        Convolution(
            weight=torch.zeros(size),
            bias=torch.zeros(size[0]),
            padding=(2, 2),
            dilation=(2, 2),
            relu=relu,
        )
    ]


def largest(zero: int, sign: int) -> Int8Convolution:
    """Weights as large as they get, whose products add up where nothing may clip."""
    return Int8Convolution(
        input_scale=0.5,
        zero=zero,
        weight=torch.full((8, 3, 3, 3), sign * WEIGHT_LIMIT, dtype=torch.int8),
        weight_scale=torch.linspace(0.25, 2, 8),
        bias=torch.linspace(-40, 40, 8),
    )


@RUNTIMES
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("zero", [0, 128])
def test_a_convolution_is_exact_to_the_border_and_never_saturates(
    run: Run, zero: int, sign: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(255 - 40, 256, (1, 3, 12, 13), generator=generator)
    int8 = largest(zero, sign)
    layers = single(int8, relu=False)
    one = Quantization(convolutions=(int8,))
    images = (levels - zero) * 0.5
    found = run(onnx_model(layers, quantization=one), images)
    by_hand = torch.nn.functional.conv2d(
        (levels - zero).double(), int8.weight.double(), padding=2, dilation=2
    )
    by_hand *= (int8.weight_scale.double() * 0.5)[:, None, None]
    by_hand += int8.rounded_bias.double()[:, None, None]
    torch.testing.assert_close(found.double(), by_hand, rtol=1e-5, atol=1e-3)


@RUNTIMES
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(41, 47), (9, 70)])
def test_the_runtimes_compute_what_torch_computes_in_integers(
    run: Run, name: str, size: tuple[int, int]
) -> None:
    layers, quantization = quantized(name)
    images = pictures(1, 70, seed=1)[:, :, : size[0], : size[1]]
    found = run(onnx_model(layers, quantization=quantization), images)
    expected = run_layers(layers, images, quantization)
    # a last bit of float32 decides between two levels now and then
    assert relative_error(found, expected) < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_int8_weights_compute_nearly_what_the_network_computes(name: str) -> None:
    layers, quantization = quantized(name)
    images = pictures(1, 70, seed=1)
    float_only = Quantization(convolutions=(None,) * len(quantization.convolutions))
    expected = run_layers(layers, images, float_only)
    torch.testing.assert_close(
        expected, random_network(name, width=2).ops(images), rtol=0, atol=1e-4
    )
    assert 0 < relative_error(run_layers(layers, images, quantization), expected) < 0.08


def test_the_first_convolutions_stay_and_no_weight_is_above_the_limit() -> None:
    _, quantization = quantized("r2d2")
    assert quantization.convolutions[:2] == (None, None)
    others = [int8 for int8 in quantization.convolutions if int8 is not None]
    assert [int8.zero for int8 in others] == [0] * 5 + [128] * 2
    for int8 in others:
        assert int8.weight.dtype == torch.int8
        assert int(int8.weight.int().abs().max()) <= WEIGHT_LIMIT


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("name", NAMES)
def test_the_same_pictures_give_the_same_weights_in_whatever_order_sums_are_taken(
    name: str,
) -> None:
    layers, first = quantized(name)
    # oneDNN adds up in another order than torch's own convolutions
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        second = calibrate(layers, pictures())
    for one, other in zip(first.convolutions[2:], second.convolutions[2:]):
        assert one is not None and other is not None
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.weight_scale, other.weight_scale)
        assert torch.equal(one.bias, other.bias)
        assert one.input_scale == other.input_scale


def test_leaves_are_the_same_for_a_seed_and_reach_black_and_white() -> None:
    drawn = draw_leaves(2, 64)
    assert drawn.shape == (2, 64, 64, 3) and drawn.dtype == np.uint8
    assert np.array_equal(drawn, draw_leaves(2, 64))
    assert not np.array_equal(drawn, draw_leaves(2, 64, seed=1))
    assert drawn.min() == 0 and drawn.max() == 255
