"""Networks' heads and losses of R2D2 written down from the papers, to compare with.

Revaud et al., NeurIPS 2019, and He et al., CVPR 2018: every descriptor is gathered by
advanced indexing, the average precision goes through a tensor of queries x bins x
scores, windows are unfolded, and autograd does the rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.models.network import (
    DenseFeatures,
    DenseNetwork,
    repeatability_from_logit,
)


def plain_forward(network: DenseNetwork, image: Tensor) -> DenseFeatures:
    """Maps of a batch of images (B, 3, H, W), head by head."""
    features = network.ops(image)
    squared = features**2
    return DenseFeatures(
        descriptors=F.normalize(features, dim=1),
        reliability=F.softmax(network.clf(squared), dim=1)[:, 1:2],
        repeatability=repeatability_from_logit(network.sal(squared)),
    )


def plain_loss(
    features1: DenseFeatures,
    features2: DenseFeatures,
    aflow: Tensor,
    queries: tuple[Tensor, Tensor, Tensor],
    config: LossConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Reliability, cosine and peaky losses of a batch whose flow is known everywhere.

    Args:
        features1: maps of the first images.
        features2: maps of the second images.
        aflow: (B, 2, H, W) position (x, y) in image 2 of each pixel of image 1.
        queries: image, y and x of the queries, each (Q,), whose neighbourhoods lie
            inside the second images.
        config: steps, radii, bins and windows.
    """
    dtype = torch.promote_types(features1.descriptors.dtype, torch.float32)
    features1 = DenseFeatures(*(maps.to(dtype) for maps in features1))
    features2 = DenseFeatures(*(maps.to(dtype) for maps in features2))
    return (
        reliability_loss(features1, features2, aflow, queries, config),
        cosine_loss(features1.repeatability, features2.repeatability, aflow, config),
        (
            peaky_loss(features1.repeatability, config.patch_size)
            + peaky_loss(features2.repeatability, config.patch_size)
        )
        / 2,
    )


def reliability_loss(
    features1: DenseFeatures,
    features2: DenseFeatures,
    aflow: Tensor,
    queries: tuple[Tensor, Tensor, Tensor],
    config: LossConfig,
) -> Tensor:
    """Mean of 1 - (AP R + kappa (1 - R))."""
    image, y, x = queries
    query = features1.descriptors[image, :, y, x]
    target = aflow[image, :, y, x].round().long()
    near = ring(0, config.positive_radius).to(aflow.device)
    far = ring(config.negative_radius, config.neighbourhood).to(aflow.device)
    correct = target[:, None] + near
    wrong = target[:, None] + far
    maps2 = features2.descriptors
    positives = torch.einsum(
        "qd,qsd->qs", query, maps2[image[:, None], :, correct[..., 1], correct[..., 0]]
    )
    negatives = torch.einsum(
        "qd,qsd->qs", query, maps2[image[:, None], :, wrong[..., 1], wrong[..., 0]]
    )
    grid = grid_inside(maps2, config.distractor_step, config.border)
    scores = query @ maps2[grid[0], :, grid[1], grid[2]].t()
    position = torch.stack([grid[2], grid[1]], dim=1)
    squared = ((target[:, None] - position) ** 2).sum(dim=2)
    same = image[:, None] == grid[0]
    scores = scores.masked_fill(same & (squared < config.negative_radius**2), 0)
    positive, best = positives.max(dim=1)
    labels = torch.zeros(1 + negatives.shape[1] + scores.shape[1], device=aflow.device)
    labels[0] = 1
    ap = average_precision(
        torch.cat([positive[:, None], negatives, scores], dim=1),
        labels.expand(len(query), -1),
        config.ap_bins,
    )
    match = correct[torch.arange(len(query), device=aflow.device), best]
    reliability = (
        features1.reliability[image, 0, y, x]
        + features2.reliability[image, 0, match[:, 1], match[:, 0]]
    ) / 2
    base = config.ap_base
    return (1 - (ap * reliability + base * (1 - reliability))).mean()


def average_precision(scores: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Quantised average precision (Q,) of scores (Q, S) with labels 0 or 1 (Q, S)."""
    centres = torch.linspace(1, 0, bins, device=scores.device, dtype=scores.dtype)
    distance = (scores.clamp(0, 1)[:, None] - centres[:, None]).abs()
    weights = (1 - distance * (bins - 1)).clamp(min=0)
    positives = (weights * labels[:, None]).sum(dim=2)
    precision = positives.cumsum(dim=1) / (weights.sum(dim=2).cumsum(dim=1) + 1e-16)
    return (precision * positives).sum(dim=1) / positives.sum(dim=1)


def cosine_loss(
    repeatability1: Tensor, repeatability2: Tensor, aflow: Tensor, config: LossConfig
) -> Tensor:
    """Mean of one minus the cosine between unfolded windows."""
    height, width = repeatability2.shape[2:]
    grid = torch.stack(
        [aflow[:, 0] * 2 / (width - 1) - 1, aflow[:, 1] * 2 / (height - 1) - 1], dim=3
    )
    warped = F.grid_sample(
        repeatability2, grid, padding_mode="border", align_corners=True
    )
    size = config.patch_size
    windows1 = F.unfold(repeatability1, size, stride=size // 2)
    windows2 = F.unfold(warped, size, stride=size // 2)
    return 1 - F.cosine_similarity(windows1, windows2, dim=1).mean()


def peaky_loss(repeatability: Tensor, patch_size: int) -> Tensor:
    """One minus the mean of maximum less mean over windows of side N + 1."""
    smooth = F.avg_pool2d(repeatability, 3, stride=1, padding=1)
    side, reach = patch_size + 1, patch_size // 2
    maximum = F.max_pool2d(smooth, side, stride=1, padding=reach)
    mean = F.avg_pool2d(smooth, side, stride=1, padding=reach)
    return 1 - (maximum - mean).mean()


def ring(nearest: int, farthest: int) -> Tensor:
    """(S, 2) whole offsets (x, y) at distances from ``nearest`` to ``farthest``."""
    reach = range(-farthest, farthest + 1)
    return torch.tensor(
        [
            (x, y)
            for y in reach
            for x in reach
            if nearest**2 <= x * x + y * y <= farthest**2
        ]
    )


def grid_inside(maps: Tensor, step: int, border: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, y and x of every ``step``-th pixel inside the borders of all images."""
    images, _, height, width = maps.shape
    axes = (
        torch.arange(images, device=maps.device),
        torch.arange(border, height - border, step, device=maps.device),
        torch.arange(border, width - border, step, device=maps.device),
    )
    image, y, x = torch.meshgrid(*axes, indexing="ij")
    return image.flatten(), y.flatten(), x.flatten()
