"""Losses of points that a teacher has chosen and described.

Each point chooses among all others of the batch, by a softmax of the similarities (each
direction of the dual softmax of Rocco et al., NeurIPS 2018, section 3.2). What it
should choose is not the true match alone: points that look alike to the teacher share
the probability (Hinton et al., "Distilling the knowledge in a neural network", 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def match_loss(
    similarity: Tensor,
    taught: Tensor,
    near: Tensor,
    *,
    temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """How far the choice between two images is from the teacher's.

    Args:
        similarity: (N, N) of the points, as first images show them, to the same points
            in second images.
        taught: (N, E) unit descriptors of the points by the teacher.
        near: (N, N) bool, pairs of points too close to call either match wrong; none of
            them is chosen.
        temperature: of the softmax.
        teacher_temperature: of the teacher's; towards 0 the true match alone is right.

    Returns:
        The cross-entropy, the mean over points and both directions.
    """
    never = torch.finfo(similarity.dtype).min
    likeness = taught @ taught.t() / teacher_temperature
    target = F.softmax(likeness.masked_fill(near, never), dim=1)
    logits = (similarity / temperature).masked_fill(near, never)
    choices = F.log_softmax(logits, dim=1) + F.log_softmax(logits.t(), dim=1)
    # a target of 0 times the logarithm of 0
    chosen = (target * choices).masked_fill(near, 0)
    return -chosen.sum() / (2 * max(len(logits), 1))


def likeness_loss(similarity: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference of the similarities of two images from the teacher's.

    With all similarities alike, descriptors are the teacher's but for a rotation (Park
    et al., "Relational knowledge distillation", CVPR 2019).

    Args:
        similarity: (N, N) as of match_loss.
        taught: (N, E) unit descriptors of the points by the teacher.
    """
    return ((similarity - taught @ taught.t()) ** 2).sum() / max(similarity.numel(), 1)


def close_points(images: Tensor, points: Tensor, radius: float) -> Tensor:
    """(N, N) bool, which points lie in one image within some pixels of each other.

    Args:
        images: (N,) int64, the image of each.
        points: (N, 2) positions.
        radius: in pixels; a distance of as much still counts.
    """
    distances = (points[:, None] - points).norm(dim=2)
    close: Tensor = (images[:, None] == images) & (distances <= radius)
    return close


def correct_matches(similarity: Tensor, correct: Tensor) -> Tensor:
    """Which points the nearest descriptor finds again.

    Args:
        similarity: (N, N) as of match_loss.
        correct: (N, N) bool, which points are as good as the true match.

    Returns:
        (N,) 1 where the nearest of all points is correct in both directions, 1/2 where
        in one, else 0; as precise as the similarity.
    """
    if not len(similarity):
        return similarity.new_zeros(0)
    found = [
        correct.gather(1, likeness.argmax(dim=1, keepdim=True))[:, 0]
        for likeness in (similarity.detach(), similarity.detach().t())
    ]
    return torch.stack(found).to(similarity.dtype).mean(dim=0)
