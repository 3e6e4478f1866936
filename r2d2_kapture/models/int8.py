"""Convolutions in 8-bit integers, as data and as a file beside a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.checkpoints import stable_safetensors
from r2d2_kapture.models.files import bundled_files

SUFFIX = ".int8"
"""Ending of a file of quantized weights; inside it is one of safetensors."""

RECIPE = "2"
"""Of core.calibration; another one makes new files."""

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
            checksum.update(
                tensor.detach().cpu().float().contiguous().numpy().tobytes()
            )
    return checksum.hexdigest()


def serialize_quantization(quantization: Quantization, made_for: str) -> bytes:
    """Encode quantized weights as a file.

    Args:
        made_for: fingerprint of the weights that they were made of.
    """
    tensors = {
        f"{place}.{name}": value
        for place, int8 in enumerate(quantization.convolutions)
        if int8 is not None
        for name, value in {
            "weight": int8.weight.contiguous(),
            "weight_scale": int8.weight_scale,
            "bias": int8.bias,
            "input_scale": torch.tensor(int8.input_scale),
            "zero": torch.tensor(int8.zero, dtype=torch.uint8),
        }.items()
    }
    count = str(len(quantization.convolutions))
    metadata = {"recipe": RECIPE, "made_for": made_for, "convolutions": count}
    return stable_safetensors(tensors, metadata)


def read_quantization(path: Path, made_for: str) -> Quantization:
    """Read quantized weights.

    Args:
        made_for: fingerprint of the weights at hand.

    Raises:
        CheckpointError: the file is missing, truncated, of another recipe, or made for
            other weights.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        expected = {"recipe": RECIPE, "made_for": made_for}
        for name, value in expected.items():
            if metadata.get(name) != value:
                raise CheckpointError(
                    f"{path}: int8 weights: found {name} {metadata.get(name)}, "
                    f"expected {value}; remove the file, and they are made again"
                )
        places = range(int(metadata["convolutions"]))
        held = {int(name.partition(".")[0]) for name in tensors}
        if not held or not held <= set(places):
            raise ValueError("tensors of no convolution, or none at all")
        return Quantization(
            convolutions=tuple(
                (
                    _read_convolution(tensors, place)
                    if f"{place}.weight" in tensors
                    else None
                )
                for place in places
            )
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a complete file of int8 weights; remove it, and they are "
            "made again"
        ) from error


def _read_convolution(tensors: dict[str, Tensor], place: int) -> Int8Convolution:
    return Int8Convolution(
        input_scale=float(tensors[f"{place}.input_scale"]),
        zero=int(tensors[f"{place}.zero"]),
        weight=tensors[f"{place}.weight"],
        weight_scale=tensors[f"{place}.weight_scale"],
        bias=tensors[f"{place}.bias"],
    )


def bundled_quantization(made_for: str) -> Quantization | None:
    """The quantized weights that come with the package for these weights, if any."""
    for path in bundled_files(SUFFIX):
        with safe_open(path, framework="pt", device="cpu") as file:
            if (file.metadata() or {}).get("made_for") != made_for:
                continue
        return read_quantization(path, made_for)
    return None
