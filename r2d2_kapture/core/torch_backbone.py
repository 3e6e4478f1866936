"""Convolutional layers run by torch, laid out for device and precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.core import processor
from r2d2_kapture.core.backbone import Backbone
from r2d2_kapture.core.graph import (
    Convolution,
    FoldedLayer,
    Pooling,
    Upsampling,
    folded_layers,
)
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.models.int8 import Quantization

Step = Callable[[Tensor], Tensor]

NARROW_PIXELS = 32
"""Side below which a CPU computes in float32: oneDNN 3.12 crashes the process on
bfloat16 convolutions whose dilation reaches beyond the image (10x7 pixels, say)."""


class TorchBackbone(Backbone):
    """The layers by torch; see Backbone."""

    def __init__(
        self,
        ops: nn.Sequential,
        runtime: Runtime,
        quantization: Quantization | None = None,
    ) -> None:
        super().__init__(ops, runtime, quantization)
        layers = folded_layers(ops)
        self._steps = _steps(layers, runtime)
        exact = dataclasses.replace(runtime, precision="fp32")
        self._narrow_steps = (
            _steps(layers, exact)
            if runtime.device.type == "cpu" and runtime.precision != "fp32"
            else None
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Run one pass; see Backbone."""
        steps, dtype = self._steps, self.runtime.dtype
        if self._narrow_steps is not None and min(images.shape[2:]) < NARROW_PIXELS:
            steps, dtype = self._narrow_steps, torch.float32
        features = images.to(dtype=dtype, memory_format=torch.channels_last)
        with _true_float32(images.device):
            for step in steps:
                features = step(features)
        return features.permute(0, 2, 3, 1).contiguous()


def _true_float32(device: torch.device) -> AbstractContextManager[object]:
    """Keep cuDNN from computing float32 in TF32, whose 10 bits break parity."""
    if device.type != "cuda":
        return nullcontext()
    manager: AbstractContextManager[object] = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )
    return manager


def _steps(layers: Sequence[FoldedLayer], runtime: Runtime) -> list[Step]:
    return [_step(layer, runtime) for layer in layers]


def _step(layer: FoldedLayer, runtime: Runtime) -> Step:
    match layer:
        case Convolution():
            return _convolution(layer, runtime)
        case Pooling(kind="max"):
            return lambda x: F.max_pool2d(x, layer.size, layer.stride)
        case Pooling():
            return lambda x: F.avg_pool2d(x, layer.size, layer.stride)
        case Upsampling():
            return lambda x: F.interpolate(
                x, scale_factor=layer.factor, mode="bilinear", align_corners=False
            )


def _convolution(layer: Convolution, runtime: Runtime) -> Step:
    weight = layer.weight.to(
        runtime.device, runtime.dtype, memory_format=torch.channels_last
    )
    offset = layer.bias.to(runtime.device, runtime.dtype)
    padding, dilation, relu = layer.padding, layer.dilation, layer.relu
    if runtime.device.type == "cpu" and processor.onednn_fuses_activations():
        fused = torch.ops.mkldnn._convolution_pointwise
        activation = "relu" if relu else "none"

        def convolve_fused(x: Tensor) -> Tensor:
            result: Tensor = fused(
                x, weight, offset, padding, [1, 1], dilation, 1, activation, [], ""
            )
            return result

        return convolve_fused

    if runtime.device.type == "cuda" and relu and torch.version.cuda:

        def convolve_by_cudnn(x: Tensor) -> Tensor:
            result: Tensor = torch.cudnn_convolution_relu(
                x, weight, offset, [1, 1], padding, dilation, 1
            )
            return result

        return convolve_by_cudnn

    def convolve(x: Tensor) -> Tensor:
        result = F.conv2d(x, weight, offset, padding=padding, dilation=dilation)
        return result.relu_() if relu else result

    return convolve
