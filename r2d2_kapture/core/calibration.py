"""Post-training quantization: from float32 layers and pictures to 8-bit integers.

Layer by layer, each given what the quantized layers before it compute: channels of the
input divided so that one step suits them all, which the convolution before does (Nagel
et al., "Data-Free Quantization", ICCV 2019); the step by least squared error; weights
fitted again to the float32 results (least squares) and rounded one column after
another, the error of each spread over those that follow (Frantar et al., "GPTQ", ICLR
2023); and the mean error taken off the bias (Nagel et al.).

Sums are of float64. Those of float32 depend on the processor in their last bits, which
decide a rounding here and there, and with it a good part of those that follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.core.graph import Convolution, FoldedLayer, Pooling
from r2d2_kapture.models.int8 import (
    INPUT_LEVELS,
    SIGNED_ZERO,
    WEIGHT_LIMIT,
    Int8Convolution,
    Quantization,
)

FLOAT_CONVOLUTIONS = 2
"""First convolutions that stay in float32: 2 % of the products of R2D2, 7 % of those of
Fast-R2D2, and a third of the error."""

SAMPLES, PART = 20_000, 2000
"""Places of each layer that its weights are fitted to, and how many at a time."""

RIDGE, DAMPING = 0.01, 0.003
"""Of the mean square of an input value: keeps the fit near the float32 weights, and
the rounding solvable."""


@torch.no_grad()
def calibrate(layers: Sequence[FoldedLayer], images: Tensor) -> Quantization:
    """Quantize all convolutions but the first two.

    The same layers and images give the same integers, on other processors too but for
    what rounding in float64 may change.

    Args:
        layers: from folded_layers.
        images: (B, 3, H, W) float32, normalised, of all that the network meets.
    """
    generator = torch.Generator().manual_seed(0)
    exact, rounded = images, images
    convolutions: list[Int8Convolution | None] = []
    for layer in layers:
        int8 = None
        if isinstance(layer, Convolution):
            if len(convolutions) >= FLOAT_CONVOLUTIONS:
                if (before := convolutions[-1]) is not None:
                    factors = _channel_factors(exact, generator)
                    convolutions[-1] = _divided(before, factors)
                    layer = _multiplied(layer, factors)
                    exact, rounded = exact / factors, rounded / factors
                int8 = _quantized(layer, exact, rounded, generator)
            convolutions.append(int8)
        rounded = run_layer(layer, rounded, int8)
        exact = run_layer(layer, exact)
    return Quantization(convolutions=tuple(convolutions))


def run_layers(
    layers: Sequence[FoldedLayer], images: Tensor, quantization: Quantization
) -> Tensor:
    """What the quantized layers compute, (B, D, h, w) float32, slowly."""
    convolutions = iter(quantization.convolutions)
    for layer in layers:
        int8 = next(convolutions) if isinstance(layer, Convolution) else None
        images = run_layer(layer, images, int8)
    return images


def run_layer(
    layer: FoldedLayer, values: Tensor, int8: Int8Convolution | None = None
) -> Tensor:
    """What one layer computes of (B, C, H, W), image by image to save memory."""
    return torch.cat([_run(layer, image, int8) for image in torch.split(values, 1)])


def _run(layer: FoldedLayer, values: Tensor, int8: Int8Convolution | None) -> Tensor:
    if isinstance(layer, Convolution):
        if int8 is None:
            result = F.conv2d(
                values.double(),
                layer.weight.double(),
                layer.bias.double(),
                padding=layer.padding,
                dilation=layer.dilation,
            ).float()
        else:  # whole numbers below 2^24: float32 is exact
            result = F.conv2d(
                levels_of(values, int8.input_scale, int8.zero),
                int8.weight.float(),
                padding=layer.padding,
                dilation=layer.dilation,
            )
            result *= (int8.weight_scale * int8.input_scale)[:, None, None]
            result += int8.rounded_bias[:, None, None]
        return result.relu_() if layer.relu else result
    if isinstance(layer, Pooling):
        pool = F.max_pool2d if layer.kind == "max" else F.avg_pool2d
        return pool(values, layer.size, layer.stride)
    return F.interpolate(
        values, scale_factor=layer.factor, mode="bilinear", align_corners=False
    )


def levels_of(values: Tensor, scale: float, zero: int) -> Tensor:
    """The nearest levels, counted from the one that means 0, as float32."""
    return (values / scale).round_().clamp_(-zero, INPUT_LEVELS - zero)


def _channel_factors(values: Tensor, generator: torch.Generator) -> Tensor:
    """What to divide channels by, (C, 1, 1), so that one step suits all of them."""
    zero = _zero_of(values)
    steps = torch.tensor(
        [_input_scale(channel, zero, generator) for channel in values.unbind(1)],
        dtype=torch.float64,
    )
    factors = (steps / steps.mean()).clamp(min=1e-2)
    return factors.float()[:, None, None]


def _divided(int8: Int8Convolution, factors: Tensor) -> Int8Convolution:
    """A convolution whose results are divided; a ReLU and a pooling do not mind."""
    return dataclasses.replace(
        int8,
        weight_scale=int8.weight_scale / factors.flatten(),
        bias=int8.bias / factors.flatten(),
    )


def _multiplied(layer: Convolution, factors: Tensor) -> Convolution:
    """The convolution that gives the same from divided values."""
    return dataclasses.replace(layer, weight=layer.weight * factors)


def _zero_of(values: Tensor) -> int:
    return SIGNED_ZERO if bool((values < 0).any()) else 0


def _quantized(
    layer: Convolution, exact: Tensor, rounded: Tensor, generator: torch.Generator
) -> Int8Convolution:
    """Quantize a convolution, given its input in float32 and as it will be."""
    zero = _zero_of(exact)
    scale = _input_scale(exact, zero, generator)
    places = _places(layer, exact, generator)
    before = _patches(layer, exact, places)
    after = levels_of(_patches(layer, rounded, places), scale, zero) * scale
    weight = layer.weight.flatten(1).t().double()
    wanted = torch.cat([part.double() @ weight for part in torch.split(before, PART)])
    mean = _mean(after)
    after -= mean.float()
    moments = _product(after, after) / SAMPLES
    products = _product(after, wanted - _mean(wanted)) / SAMPLES
    ridge = RIDGE * moments.diagonal().mean().clamp(min=1e-12) * _identity(moments)
    fitted = torch.linalg.solve(moments + ridge, products + ridge @ weight).t()
    steps = _weight_scales(fitted)
    levels = _round_columns(fitted, steps, moments)
    bias = layer.bias + _mean(wanted) - mean @ (levels * steps[:, None]).t()
    return Int8Convolution(
        input_scale=scale,
        zero=zero,
        weight=levels.to(torch.int8).view_as(layer.weight),
        weight_scale=steps.float(),
        bias=bias.float(),
    )


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(0, dtype=torch.float64)


def _product(first: Tensor, second: Tensor) -> Tensor:
    """The product of the transposed first with the second in float64, by parts to save
    memory."""
    parts = zip(torch.split(first, PART), torch.split(second, PART))
    return torch.stack([one.double().t() @ other.double() for one, other in parts]).sum(
        0
    )


def _input_scale(values: Tensor, zero: int, generator: torch.Generator) -> float:
    """The step whose levels have the least squared error, clipping included."""
    flat = values.flatten()
    some = flat[torch.randint(len(flat), (SAMPLES,), generator=generator)]
    widest = max(float(flat.abs().max()), 1e-6) / (INPUT_LEVELS - zero)
    # in float32, as it is stored
    steps: list[float] = (widest * np.linspace(0.25, 1, 31)).astype(np.float32).tolist()
    errors = [
        float(_mean((levels_of(some, step, zero) * step - some).square()))
        for step in steps
    ]
    return steps[errors.index(min(errors))]


def _places(
    layer: Convolution, values: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, rows and columns of random results of a convolution."""
    sides = [
        side + 2 * padding - dilation * (kernel - 1)
        for side, padding, dilation, kernel in zip(
            values.shape[2:], layer.padding, layer.dilation, layer.weight.shape[2:]
        )
    ]
    image, row, column = (
        torch.randint(end, (SAMPLES,), generator=generator)
        for end in (len(values), *sides)
    )
    return image, row, column


def _patches(
    layer: Convolution, values: Tensor, places: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """What a convolution reads there: (N, I * h * w), in the order of its weights."""
    rows, columns = layer.padding
    padded = F.pad(values, (columns, columns, rows, rows)).permute(0, 2, 3, 1)
    image, row, column = places
    height, width = layer.weight.shape[2:]
    read = [
        padded[image, row + i * layer.dilation[0], column + j * layer.dilation[1]]
        for i in range(height)
        for j in range(width)
    ]
    return torch.stack(read, dim=2).flatten(1)


def _weight_scales(weight: Tensor) -> Tensor:
    """The step of each row whose levels have the least squared error."""
    widest = weight.abs().amax(dim=1).clamp(min=1e-12) / WEIGHT_LIMIT
    steps = widest[:, None] * torch.from_numpy(np.linspace(0.6, 1, 21))
    levels = (weight[:, None] / steps[..., None]).round()
    levels = levels.clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)
    errors = (levels * steps[..., None] - weight[:, None]).square().sum(dim=2)
    best = errors.argmin(dim=1, keepdim=True)
    # in float32, as it is stored and multiplied with
    return steps.gather(1, best)[:, 0].float().double()


def _round_columns(weight: Tensor, steps: Tensor, moments: Tensor) -> Tensor:
    """Levels (O, K) of weights, columns of large inputs first (Frantar et al.)."""
    order = moments.diagonal().argsort(descending=True)
    damping = DAMPING * moments.diagonal().mean().clamp(min=1e-12)
    damped = moments[order][:, order] + damping * _identity(moments)
    spread = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    left = weight[:, order].clone()
    levels = torch.empty_like(left)
    for column in range(len(moments)):
        levels[:, column] = (left[:, column] / steps).round()
        levels[:, column].clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        error = left[:, column] - levels[:, column] * steps
        row = spread[column, column:] / spread[column, column]
        left[:, column:] -= error[:, None] * row
    return levels[:, order.argsort()]


def _identity(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=square.dtype)
