"""Both confidences of dense features on a GPU, in one pass over them, in Triton."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from r2d2_kapture.models.kernels import kernels_work
from r2d2_kapture.models.network import repeatability_from_logit

Confidences = tuple[Tensor, Tensor]
PIXELS = 16
"""Of one program: more would take more registers than there are."""


def works_on(device: torch.device) -> bool:
    """Whether the kernel runs there; see kernels_work."""
    return kernels_work(device, lambda: _is_right(device))


def _is_right(device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 7, 16, generator=generator)
    heads = torch.randn(2, 16, generator=generator)
    bias = torch.randn(2, generator=generator)
    on_gpu = features.to(device), heads.to(device), bias.to(device)
    return all(
        torch.allclose(found.cpu(), expected, atol=1e-5)
        for doubled in (False, True)
        for found, expected in zip(
            confidences(*on_gpu, doubled), _by_torch(features, heads, bias, doubled)
        )
    )


def _by_torch(
    features: Tensor, heads: Tensor, bias: Tensor, doubled: bool
) -> Confidences:
    """As ``confidences``, by making the doubled features."""
    planes = features.permute(0, 3, 1, 2)
    if doubled:
        planes = F.interpolate(
            planes, scale_factor=2, mode="bilinear", align_corners=False
        )
    logits = F.linear(planes.permute(0, 2, 3, 1).square(), heads, bias)
    return logits[..., 0].sigmoid(), repeatability_from_logit(logits[..., 1])


def confidences(
    features: Tensor, heads: Tensor, bias: Tensor, doubled: bool
) -> Confidences:
    """Reliability and repeatability, (B, H, W) float32 each; see Heads.

    Args:
        features: (B, h, w, D) contiguous, any float type, less than 2^31 values.
        heads: (2, D) float32, of the squared features.
        bias: (2,) float32.
        doubled: whether H and W are twice h and w.
    """
    count, height, width, dim = features.shape
    factor = 2 if doubled else 1
    reliability, repeatability = torch.empty(
        2, count, height * factor, width * factor, device=features.device
    ).unbind()
    with torch.cuda.device_of(features):
        _confidences[triton.cdiv(reliability.numel(), PIXELS),](
            features,
            heads.contiguous(),
            bias.contiguous(),
            reliability,
            repeatability,
            reliability.numel(),
            height,
            width,
            DIM=dim,
            BLOCK=triton.next_power_of_2(dim),
            PIXELS=PIXELS,
            DOUBLED=doubled,
        )
    return reliability, repeatability


@triton.jit(do_not_specialize=["count", "height", "width"])
def _confidences(
    features,
    heads,
    bias,
    reliability,
    repeatability,
    count,
    height,
    width,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    PIXELS: tl.constexpr,
    DOUBLED: tl.constexpr,
):
    """Both heads of some pixels, and what makes confidences of their logits."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    k = tl.arange(0, BLOCK)[None, :]
    mask = (pixel < count)[:, None] & (k < DIM)
    if DOUBLED:
        column = pixel % (2 * width)
        line = pixel // (2 * width)
        row = line % (2 * height)
        x, y = column // 2, row // 2
        # the farther cells, of weight 1/4; beyond the border the nearest counts
        far_x = tl.minimum(tl.maximum(x - 1 + 2 * (column % 2), 0), width - 1)
        far_y = tl.minimum(tl.maximum(y - 1 + 2 * (row % 2), 0), height - 1)
        first = line // (2 * height) * height
        near = _between(features, (first + y) * width, x, far_x, k, mask, DIM)
        far = _between(features, (first + far_y) * width, x, far_x, k, mask, DIM)
        values = near + 0.25 * (far - near)
    else:
        place = features + pixel[:, None] * DIM + k
        values = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    squared = values * values
    reliable = tl.load(heads + k, mask=k < DIM, other=0.0)
    repeatable = tl.load(heads + DIM + k, mask=k < DIM, other=0.0)
    logit = tl.sum(squared * reliable, 1) + tl.load(bias)
    tl.store(reliability + pixel, tl.sigmoid(logit), mask=pixel < count)
    logit = tl.sum(squared * repeatable, 1) + tl.load(bias + 1)
    # softplus as log1p(exp), without the error of 1 + a small number
    power = tl.exp(tl.minimum(logit, 20.0))
    above = 1.0 + power
    small = above == 1.0
    log1p = tl.log(above) * power / tl.where(small, 1.0, above - 1.0)
    positive = tl.where(small, power, log1p)
    positive = tl.where(logit > 20.0, logit, positive)
    tl.store(repeatability + pixel, positive / (1.0 + positive), mask=pixel < count)


@triton.jit
def _between(features, line, near, far, k, mask, DIM: tl.constexpr):
    """Features between two cells of a line; exactly flat where they are."""
    here = tl.load(features + (line + near)[:, None] * DIM + k, mask=mask, other=0.0)
    there = tl.load(features + (line + far)[:, None] * DIM + k, mask=mask, other=0.0)
    value = here.to(tl.float32)
    return value + 0.25 * (there.to(tl.float32) - value)
