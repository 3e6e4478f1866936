"""Train the int8 weights of a network to give the features that it gives in float32.

They begin as the integers that come with the package, or as calibrated ones. Gradients
pass roundings as if there were none (Bengio, Leonard and Courville, "Estimating or
propagating gradients through stochastic neurons", 2013), and steps of inputs learn too
(Esser et al., "Learned step size quantization", ICLR 2020).

    python benchmarks/int8_training.py --model r2d2_v2 --images photos \
        --output r2d2_v2.int8

Those of r2d2_v3 were made so, with these settings (docs/accuracy.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from r2d2_kapture.core.calibration import run_layer
from r2d2_kapture.core.graph import Convolution, confidence_heads, folded_layers
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.extractors.int8 import int8_weights
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.models.int8 import (
    INPUT_LEVELS,
    WEIGHT_LIMIT,
    Int8Convolution,
    Quantization,
    fingerprint,
    serialize_quantization,
)
from r2d2_kapture.models.network import DenseNetwork

SMALLEST_SHRINKING = 0.35
CONFIDENCE_SHARE = 0.3
BIAS_STEP = 16
"""Products of both scales that a bias moves by at a learning rate of 1."""


class RoundedInput(torch.autograd.Function):
    """Levels of an input times their step, which learns."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, zero: int) -> Tensor:
        scaled = values / step
        levels = scaled.round().clamp_(-zero, INPUT_LEVELS - zero)
        ctx.save_for_backward(scaled, levels)
        return levels * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        scaled, levels = ctx.saved_tensors
        inside = (scaled - levels).abs() <= 0.5
        of_step = gradient * torch.where(inside, levels - scaled, levels)
        return gradient * inside, of_step.sum(), None


class TrainedConvolution(nn.Module):
    """A convolution in simulated integers.

    Args:
        layer: with its padding and dilation.
        int8: where it begins.
    """

    def __init__(self, layer: Convolution, int8: Int8Convolution) -> None:
        super().__init__()
        self._layer, self._int8 = layer, int8
        self.levels = nn.Parameter(int8.weight.float())
        self.log_weight_scale = nn.Parameter(torch.zeros_like(int8.weight_scale))
        self.bias_steps = nn.Parameter(torch.zeros_like(int8.bias))
        self.log_input_scale = nn.Parameter(torch.zeros(()))

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameters with their learning rates, that of levels given."""
        rates = {
            self.levels: rate,
            self.log_weight_scale: rate / 50,
            self.bias_steps: rate,
            self.log_input_scale: rate / 40,
        }
        return [{"params": [value], "lr": own} for value, own in rates.items()]

    def now(self) -> Int8Convolution:
        """The integers that it has become."""
        return dataclasses.replace(
            self._int8,
            input_scale=float(self._input_scale().detach()),
            weight=self._rounded().detach().to(torch.int8),
            weight_scale=self._weight_scale().detach(),
            bias=self._bias().detach(),
        )

    def forward(self, values: Tensor) -> Tensor:
        """The results for (B, I, H, W) values of float32."""
        round_input: Callable[..., Tensor] = RoundedInput.apply
        values = round_input(values, self._input_scale(), self._int8.zero)
        limited = self.levels.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        rounded = limited + (self._rounded() - limited).detach()
        layer = self._layer
        result = F.conv2d(
            values,
            rounded * self._weight_scale()[:, None, None, None],
            self._bias(),
            padding=layer.padding,
            dilation=layer.dilation,
        )
        return result.relu() if layer.relu else result

    def _rounded(self) -> Tensor:
        return self.levels.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).round()

    def _weight_scale(self) -> Tensor:
        return self._int8.weight_scale * self.log_weight_scale.exp()

    def _input_scale(self) -> Tensor:
        return self._int8.input_scale * self.log_input_scale.exp()

    def _bias(self) -> Tensor:
        unit = BIAS_STEP * self._int8.weight_scale * self._int8.input_scale
        return self._int8.bias + unit * self.bias_steps


def main() -> None:
    """Train, report the loss, and write the integers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a bundled model or a file")
    parser.add_argument("--images", type=Path, required=True, help="of photographs")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--side", type=int, default=144, help="of crops, in pixels")
    parser.add_argument("--rate", type=float, default=0.03, help="levels a step")
    args = parser.parse_args()
    network = load_checkpoint(args.model).network.eval()
    if not isinstance(network, DenseNetwork):
        parser.error(f"--model {args.model}: expected R2D2 or Fast-R2D2")
    *first, last = network.ops
    # an enlargement at the end has nothing to train
    ops = nn.Sequential(*first, *([] if isinstance(last, nn.Upsample) else [last]))
    before, _ = int8_weights(network)
    heads = confidence_heads(network)
    layers, trained = _trained(ops, before)
    groups = [group for item in trained if item for group in item.groups(args.rate)]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / 10)
        * (1 + math.cos(math.pi * step / args.steps))
        / 2,
    )
    files = sorted(path for path in args.images.rglob("*") if path.is_file())
    rng = random.Random(1)
    for step in range(args.steps):
        crops = [_crop(files, args.side, rng) for _ in range(args.batch_size)]
        images = normalize_rgb(torch.from_numpy(np.stack(crops)))
        with torch.no_grad():
            wanted = ops(images)
        found = layers(images)
        pairs = zip(_logits(heads, found), _logits(heads, wanted))
        confidences = sum(_relative(one, other) for one, other in pairs)
        loss = _relative(found, wanted) + CONFIDENCE_SHARE * confidences
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rates.step()
        if step % 25 == 24:
            print(f"{step + 1}: {10 * math.log10(float(loss.detach())):.2f} dB")
    now = tuple(item.now() if item else None for item in trained)
    made = serialize_quantization(
        Quantization(convolutions=now), fingerprint(network.ops)
    )
    args.output.write_bytes(made)


class _Fixed(nn.Module):
    """A layer that stays in float32."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, values: Tensor) -> Tensor:
        return run_layer(self._layer, values)


def _trained(
    ops: nn.Sequential, before: Quantization
) -> tuple[nn.Sequential, list[TrainedConvolution | None]]:
    """The layers, and those of them that are trained, by convolution."""
    convolutions = iter(before.convolutions)
    modules: list[nn.Module] = []
    trained: list[TrainedConvolution | None] = []
    for layer in folded_layers(ops):
        int8 = next(convolutions) if isinstance(layer, Convolution) else None
        if isinstance(layer, Convolution):
            trained.append(TrainedConvolution(layer, int8) if int8 else None)
        modules.append(trained[-1] if int8 and trained[-1] else _Fixed(layer))
    return nn.Sequential(*modules), trained


def _crop(files: list[Path], side: int, rng: random.Random) -> Any:
    """A square of a photograph shrunk at random: (side, side, 3) uint8."""
    while True:
        with Image.open(rng.choice(files)) as image:
            share = max(
                rng.uniform(SMALLEST_SHRINKING, 1), (side + 1) / min(image.size)
            )
            if share > 1:
                continue
            size = round(image.width * share), round(image.height * share)
            small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        left, top = (rng.randrange(length - side + 1) for length in size)
        return np.asarray(small.crop((left, top, left + side, top + side)))


def _logits(heads: Convolution, features: Tensor) -> tuple[Tensor, ...]:
    return torch.split(F.conv2d(features**2, heads.weight, heads.bias), 1, dim=1)


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Power of the error relative to that of the truth, the mean over images."""
    errors = (found - wanted).square().mean((1, 2, 3))
    return (errors / wanted.square().mean((1, 2, 3))).mean()


if __name__ == "__main__":
    main()
