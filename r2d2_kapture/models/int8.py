"""Convolutions in 8-bit integers, as data and as a file beside a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from r2d2_kapture.errors import CheckpointError

SUFFIX = ".int8"
"""Ending of a file of quantized weights; inside it is one of safetensors."""

INPUT_LEVELS = 255
"""Levels of an input above its lowest one."""

SIGNED_ZERO = 128
"""Level that means 0 where an input has negative values."""

WEIGHT_LIMIT = 64
"""Largest weight in levels. Processors without VNNI add two products in 16 bits, with
saturation: 2 x 255 x 64 is the most that fits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Convolution:
    """What a convolution computes from levels, whole numbers 0 to 255.

    ``(weight * (level - zero)).sum() * weight_scale * input_scale + rounded_bias``

    Attributes:
        input_scale: what one level of the input is worth.
        zero: level of the input that means 0: 0 after a ReLU, else SIGNED_ZERO.
        weight: (O, I, h, w) int8, at most WEIGHT_LIMIT in size.
        weight_scale: (O,) float32, what one level of a weight is worth.
        bias: (O,) float32.
    """

    input_scale: float
    zero: int
    weight: Tensor
    weight_scale: Tensor
    bias: Tensor

    @property
    def bias_levels(self) -> Tensor:
        """(O,) int32, in products of both scales."""
        return (self.bias / (self.weight_scale * self.input_scale)).round().int()

    @property
    def rounded_bias(self) -> Tensor:
        """(O,) float32: the levels of the bias as what they are worth."""
        return self.bias_levels * (self.weight_scale * self.input_scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantization:
    """The convolutions of a network in 8-bit integers.

    Attributes:
        convolutions: in their order; None where one stays in float32.
    """

    convolutions: tuple[Int8Convolution | None, ...]


def fingerprint(ops: nn.Sequential) -> str:
    """A checksum of the weights of layers, whatever file they came from: hexadecimal
    SHA-256."""
    checksum = hashlib.sha256()
    for name, tensor in sorted(ops.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            checksum.update(f"{name} {tuple(tensor.shape)}\n".encode())
            checksum.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return checksum.hexdigest()
