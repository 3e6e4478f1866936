"""Folded layers as nodes of ONNX, in float32 or in 8-bit integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r2d2_kapture.core.graph import Convolution, FoldedLayer, Pooling, Upsampling
from r2d2_kapture.core.onnx_writer import OnnxWriter, Port, Value
from r2d2_kapture.models.int8 import Int8Convolution, Quantization

INPUT, OUTPUT = "images", "features"
"""Names of the tensors that go in and come out of a model of layers alone."""


def onnx_model(
    layers: Sequence[FoldedLayer],
    *,
    quantization: Quantization | None = None,
    channels_last: bool = False,
) -> Any:
    """Write layers as a model of ONNX, with sizes that are known when it runs.

    Args:
        layers: from folded_layers.
        quantization: of their convolutions; by default all compute in float32.
        channels_last: whether features are (B, h, w, D), which onnxruntime writes as
            quickly as (B, D, h, w).

    Returns:
        An ``onnx.ModelProto``: ``images`` (B, 3, H, W) float32, normalised, to
        ``features`` (B, D, h, w) float32.

    Raises:
        ConfigError: the package onnx is not installed.
    """
    writer = OnnxWriter("a model of ONNX")
    images = Port(name=INPUT, shape=("batch", 3, "height", "width"))
    features = add_layers(writer.input(images), layers, quantization)
    channels = [len(item.bias) for item in layers if isinstance(item, Convolution)][-1]
    shape: tuple[int | str, ...] = ("batch", channels, "rows", "columns")
    if channels_last:
        features = features.transpose(0, 2, 3, 1)
        shape = ("batch", "rows", "columns", channels)
    return writer.model(images, {Port(name=OUTPUT, shape=shape): features})


def add_layers(
    value: Value,
    layers: Sequence[FoldedLayer],
    quantization: Quantization | None = None,
) -> Value:
    """Add layers to the model of a value.

    Args:
        value: (B, C, H, W) float32.
        layers: from folded_layers.
        quantization: of their convolutions, which read QuantizeLinear and
            DequantizeLinear; by default all compute in float32.
    """
    integers = list(quantization.convolutions if quantization else ())
    for layer in layers:
        following = integers[0] if integers else None
        match layer:
            case Convolution():
                value = _convolution(layer, following, value)
                integers = integers[1:]
            case Pooling():
                if following is not None and layer.kind == "max":
                    value = _levels(following, value)
                value = _pooling(layer, value)
            case Upsampling():
                value = _upsampling(layer, value)
    return value


def _convolution(
    layer: Convolution, int8: Int8Convolution | None, value: Value
) -> Value:
    """A convolution; runtimes know one of levels by what surrounds it."""
    writer = value.writer
    if int8 is None:
        weight = writer.constant(layer.weight.cpu().float().numpy())
        bias = writer.constant(layer.bias.cpu().float().numpy())
    else:
        scales = int8.weight_scale.numpy()
        weight = _dequantized(
            writer.constant(int8.weight.numpy(), "int8"),
            writer.constant(scales),
            writer.constant(np.zeros(len(scales)), "int8"),
            axis=0,
        )
        steps = writer.constant(scales * np.float32(int8.input_scale))
        levels = writer.constant(int8.bias_levels.numpy(), "int32")
        bias = _dequantized(levels, steps, axis=0)
        value = _levels(int8, value)
    value = writer.node(
        "Conv",
        value,
        weight,
        bias,
        kernel_shape=list(layer.weight.shape[2:]),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation),
    )
    return writer.node("Relu", value) if layer.relu else value


def _levels(int8: Int8Convolution, value: Value) -> Value:
    """A value rounded to the levels of the convolution that follows."""
    scale = value.writer.constant(int8.input_scale)
    zero = value.writer.constant(int8.zero, "uint8")
    rounded = value.writer.node("QuantizeLinear", value, scale, zero, kind="uint8")
    return _dequantized(rounded, scale, zero)


def _dequantized(levels: Value, *scales: Value, **attributes: int) -> Value:
    node = levels.writer.node
    return node("DequantizeLinear", levels, *scales, kind="float32", **attributes)


def _pooling(layer: Pooling, value: Value) -> Value:
    return value.writer.node(
        "MaxPool" if layer.kind == "max" else "AveragePool",
        value,
        kernel_shape=[layer.size] * 2,
        strides=[layer.stride] * 2,
    )


def _upsampling(layer: Upsampling, value: Value) -> Value:
    factors = value.writer.constant([1, 1, layer.factor, layer.factor])
    return value.writer.node(
        "Resize",
        value,
        None,
        factors,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
