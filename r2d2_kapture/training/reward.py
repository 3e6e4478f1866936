"""What matching a network's own keypoints is worth: the loss that matching measures.

Each correct match gains and each wrong one costs, as in Tyszkiewicz et al., "DISK:
Learning local features with policy gradient", NeurIPS 2020. Nothing is drawn here: the
probability of a match is known, that both keypoints pass a threshold of the score
times that each is chosen by the other, so its slope is exact. It reaches both
confidences and the descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.models.network import DenseFeatures
from r2d2_kapture.training.keypoints import best_maxima, sample_rows

THRESHOLDS = 0.4, 0.8
"""Of the score; each step draws one in between, so that ranks matter everywhere."""
SOFTNESS = 0.07
"""Difference of scores over which a keypoint comes to pass the threshold."""
GAIN_RADII = 1.0, 2.0, 3.0, 5.0
"""Pixels; the gain of a match is the share of these that it lies within."""
RIGHT_RADIUS = 3.0
"""Pixels, of matches that are counted as right."""
KEYPOINTS_A_SIDE = 128
"""The reward is logged, and minimised, a keypoint of so many in an image."""
NOWHERE = -1e4


@dataclass(frozen=True, kw_only=True)
class OwnKeypoints:
    """Keypoints that a network finds in a batch of images.

    Attributes:
        images: (N,) int64, the image of each.
        points: (N, 2) float32 positions (x, y), sub-pixel.
        scores: (N,) float32, reliability times repeatability.
        descriptors: (N, D) float32, unit L2 norm.
    """

    images: Tensor
    points: Tensor
    scores: Tensor
    descriptors: Tensor


def reward_loss(
    first: DenseFeatures,
    second: DenseFeatures,
    aflow: Tensor,
    *,
    threshold: float,
    cost: float,
    per_image: int,
    temperature: float,
    border: int,
) -> tuple[Tensor, Tensor]:
    """Minus the expected reward of matching all keypoints of both sides.

    Keypoints of the other images of the batch are distractors, and so are those whose
    true position is unknown or outside the second image: no match of theirs is right.

    Args:
        first, second: maps of the images 1 and 2.
        aflow: (B, 2, H, W) position (x, y) in image 2 of each pixel of image 1, or NaN.
        threshold: of the score, 0 to 1.
        cost: of a wrong match; a perfect one gains 1.
        per_image: most keypoints of an image.
        temperature: of the softmax over similarities.
        border: pixels along the border without keypoints, 2 at least.

    Returns:
        The loss, and the share of the matches within RIGHT_RADIUS, detached.
    """
    one, two = (own_keypoints(maps, per_image, border) for maps in (first, second))
    targets = sample_rows(aflow, one.images, one.points).nan_to_num(NOWHERE)
    distances = (targets[:, None] - two.points).norm(dim=2)
    apart = one.images[:, None] != two.images
    distances = distances.masked_fill(apart, torch.inf)
    shares = torch.stack([distances <= radius for radius in GAIN_RADII]).float().mean(0)
    gain = torch.where(shares > 0, shares, -cost)
    passes1, passes2 = (
        F.logsigmoid((side.scores - threshold) / SOFTNESS) for side in (one, two)
    )
    logits = one.descriptors @ two.descriptors.t() / temperature
    chosen = F.log_softmax(logits + passes2, dim=1) + F.log_softmax(
        logits + passes1[:, None], dim=0
    )
    matched = (chosen + passes1[:, None] + passes2).exp()
    right = (matched * (distances <= RIGHT_RADIUS)).sum() / matched.sum().clamp(
        min=1e-6
    )
    loss = -(matched * gain).sum() / (len(aflow) * KEYPOINTS_A_SIDE)
    return loss, right.detach()


def own_keypoints(maps: DenseFeatures, per_image: int, border: int) -> OwnKeypoints:
    """The maxima of repeatability of the highest scores, and what they are worth.

    Positions have no slope; scores and descriptors have.
    """
    scores = maps.repeatability * maps.reliability
    best = best_maxima(maps.repeatability, per_image, border, scores=scores)
    images = torch.arange(len(best), device=best.device)[:, None].expand(-1, per_image)
    found = best[..., 0].isfinite()
    points, images = best[found], images[found]
    x, y = points.round().long().unbind(dim=1)
    return OwnKeypoints(
        images=images,
        points=points,
        scores=scores[images, 0, y, x],
        descriptors=F.normalize(sample_rows(maps.descriptors, images, points), dim=1),
    )
