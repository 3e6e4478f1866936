"""The folded layers of a network as plain data, and as a model of ONNX.

Both are what a network computes in evaluation mode: batch norms are folded into the
convolutions before them, and activations belong to their convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.int8 import Int8Convolution, Quantization
from r2d2_kapture.models.network import DenseNetwork

OPSET = 17
"""Of ONNX: operators as both runtimes have known them for years."""

INPUT, OUTPUT = "images", "features"
"""Names of the tensors that go in and come out of a model of ONNX."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """A convolution of stride 1 with its batch norm and activation.

    Attributes:
        weight: (O, I, h, w) float32.
        bias: (O,) float32.
        padding: rows and columns of zeros on either side.
        dilation: of rows and columns.
        relu: whether negative results become 0.
    """

    weight: Tensor
    bias: Tensor
    padding: tuple[int, int]
    dilation: tuple[int, int]
    relu: bool


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """The maximum or the average of square windows, those beyond the border left out.

    Attributes:
        kind: which.
        size: side of a window.
        stride: from one window to the next.
    """

    kind: Literal["max", "average"]
    size: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Upsampling:
    """Bilinear enlargement; borders, not corner centres, are aligned.

    Attributes:
        factor: of both sides.
    """

    factor: int


FoldedLayer = Convolution | Pooling | Upsampling


def folded_layers(ops: nn.Sequential) -> list[FoldedLayer]:
    """Fold batch norms and activations into the convolutions before them.

    Args:
        ops: of a network, in evaluation mode; not modified.

    Raises:
        ConfigError: a layer that no network of this package has.
    """
    modules = list(ops)
    layers: list[FoldedLayer] = []
    while modules:
        module = modules.pop(0)
        if not isinstance(module, nn.Conv2d):
            layers.append(_without_weights(module))
            continue
        weight, bias = module.weight, given(module.bias)
        if modules and isinstance(norm := modules[0], nn.BatchNorm2d):
            modules.pop(0)
            weight, bias = fold_batch_norm(weight, bias, norm)
        relu = bool(modules) and isinstance(modules[0], nn.ReLU)
        if relu:
            modules.pop(0)
        rows, columns = (int(side) for side in module.padding)
        layers.append(
            Convolution(
                weight=weight.detach(),
                bias=bias.detach(),
                padding=(rows, columns),
                dilation=(module.dilation[0], module.dilation[1]),
                relu=relu,
            )
        )
    return layers


def confidence_heads(network: DenseNetwork) -> Convolution:
    """Both heads of a network as one convolution of its squared features.

    Its two channels are the logits of reliability, for a sigmoid, and of repeatability.
    """
    reliable = network.clf.weight[1:] - network.clf.weight[:1]
    return Convolution(
        weight=torch.cat([reliable, network.sal.weight]).detach(),
        bias=torch.cat(
            [torch.diff(given(network.clf.bias)), given(network.sal.bias)]
        ).detach(),
        padding=(0, 0),
        dilation=(1, 1),
        relu=False,
    )


def fold_batch_norm(
    weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Weights (O, I, h, w) and bias (O,) that do what a batch norm did after them."""
    scale = (given(norm.running_var) + norm.eps).rsqrt()
    shift = -given(norm.running_mean) * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return weight * scale[:, None, None, None], bias * scale + shift


def given(value: Tensor | None) -> Tensor:
    """A parameter that the networks of this package always have."""
    if value is None:
        raise ConfigError("a layer has no bias or statistics; the engine needs both")
    return value


def _without_weights(module: nn.Module) -> FoldedLayer:
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return Pooling(
            kind="max" if isinstance(module, nn.MaxPool2d) else "average",
            size=int(module.kernel_size),  # type: ignore[arg-type]
            stride=int(module.stride),  # type: ignore[arg-type]
        )
    if isinstance(module, nn.Upsample) and (
        (module.mode, bool(module.align_corners)) == ("bilinear", False)
    ):
        return Upsampling(factor=int(module.scale_factor))  # type: ignore[arg-type]
    raise ConfigError(
        f"found a layer {type(module).__name__}, expected convolutions, each with its "
        "batch norm and ReLU, pooling and bilinear upsampling"
    )


def onnx_model(
    layers: Sequence[FoldedLayer],
    *,
    quantization: Quantization | None = None,
    channels_last: bool = False,
) -> Any:
    """Write layers as a model of ONNX, with sizes that are known when it runs.

    Args:
        layers: from folded_layers.
        quantization: of their convolutions, which read QuantizeLinear and
            DequantizeLinear; by default all compute in float32.
        channels_last: whether features are (B, h, w, D), which onnxruntime writes as
            quickly as (B, D, h, w).

    Returns:
        An ``onnx.ModelProto``: ``images`` (B, 3, H, W) float32, normalised, to
        ``features`` (B, D, h, w) float32.

    Raises:
        ConfigError: the package onnx is not installed.
    """
    onnx = import_extra("onnx", "onnx", "a model of ONNX")
    writer = _Writer(onnx)
    value, channels = INPUT, 3
    integers = list(quantization.convolutions if quantization else ())
    for layer in layers:
        following = integers[0] if integers else None
        match layer:
            case Convolution():
                if following is None:
                    value = writer.convolution(layer, value)
                else:
                    value = writer.int8_convolution(layer, following, value)
                integers = integers[1:]
                channels = len(layer.bias)
            case Pooling():
                if following is not None and layer.kind == "max":
                    value = writer.levels(following, value)
                value = writer.pooling(layer, value)
            case Upsampling():
                value = writer.upsampling(layer, value)
    shape: list[str | int] = ["batch", channels, "rows", "columns"]
    if channels_last:
        value = writer.node("Transpose", [value], perm=[0, 2, 3, 1])
        shape.append(shape.pop(1))
    return writer.model(shape)


class _Writer:
    """Collects the nodes and constants of a graph."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def convolution(self, layer: Convolution, value: str) -> str:
        weight = self.constant("weight", layer.weight.cpu().float().numpy())
        bias = self.constant("bias", layer.bias.cpu().float().numpy())
        return self._convolved(layer, [value, weight, bias])

    def int8_convolution(
        self, layer: Convolution, int8: Int8Convolution, value: str
    ) -> str:
        """A convolution of levels; both runtimes know it by what surrounds it."""
        scales = int8.weight_scale.numpy()
        weight = self.node(
            "DequantizeLinear",
            [
                self.constant("weight", int8.weight.numpy()),
                self.constant("scales", scales),
                self.constant("zeros", np.zeros(len(scales), np.int8)),
            ],
            axis=0,
        )
        steps = scales * np.float32(int8.input_scale)
        bias = self.node(
            "DequantizeLinear",
            [
                self.constant("bias", int8.bias_levels.numpy()),
                self.constant("steps", steps),
            ],
            axis=0,
        )
        return self._convolved(layer, [self.levels(int8, value), weight, bias])

    def levels(self, int8: Int8Convolution, value: str) -> str:
        """A value rounded to the levels of the convolution that follows."""
        how = [
            self.constant("scale", np.array(int8.input_scale, np.float32)),
            self.constant("zero", np.array(int8.zero, np.uint8)),
        ]
        rounded = self.node("QuantizeLinear", [value, *how])
        return self.node("DequantizeLinear", [rounded, *how])

    def _convolved(self, layer: Convolution, inputs: Sequence[str]) -> str:
        value = self.node(
            "Conv",
            inputs,
            kernel_shape=list(layer.weight.shape[2:]),
            pads=[*layer.padding, *layer.padding],
            dilations=list(layer.dilation),
        )
        return self.node("Relu", [value]) if layer.relu else value

    def pooling(self, layer: Pooling, value: str) -> str:
        return self.node(
            "MaxPool" if layer.kind == "max" else "AveragePool",
            [value],
            kernel_shape=[layer.size] * 2,
            strides=[layer.stride] * 2,
        )

    def upsampling(self, layer: Upsampling, value: str) -> str:
        factors = np.array([1, 1, layer.factor, layer.factor], np.float32)
        return self.node(
            "Resize",
            [value, "", self.constant("factors", factors)],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; the name of its one output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(
            self._onnx.helper.make_node(
                operator, inputs, [name], name=name, **attributes
            )
        )
        return name

    def constant(self, kind: str, values: npt.NDArray[Any]) -> str:
        """Add an array; its name."""
        name = f"{kind}_{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def model(self, shape: Sequence[str | int]) -> Any:
        """The model whose output, of a shape, is that of the last node."""
        helper, tensor = self._onnx.helper, self._onnx.TensorProto
        self._nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self._nodes,
            "backbone",
            [
                helper.make_tensor_value_info(
                    INPUT, tensor.FLOAT, ["batch", 3, "height", "width"]
                )
            ],
            [helper.make_tensor_value_info(OUTPUT, tensor.FLOAT, shape)],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, producer_name="r2d2_kapture", opset_imports=opsets, ir_version=8
        )
        self._onnx.checker.check_model(model)
        return model
