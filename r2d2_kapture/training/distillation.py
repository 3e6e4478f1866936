"""What R2D2 and Fast-R2D2 are trained for where a teacher helps.

Each point that the teacher has chosen and described chooses among all others of the
batch, by a softmax of the similarities (each direction of the dual softmax of Rocco et
al., NeurIPS 2018, section 3.2). What it should choose is not the true match alone:
points that look alike to the teacher share the probability (Hinton et al., "Distilling
the knowledge in a neural network", 2015).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.distillation import DistillationConfig
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.models.network import DenseFeatures
from r2d2_kapture.training.forward import dense_features
from r2d2_kapture.training.keypoints import (
    best_maxima,
    reprojection_loss,
    sample_rows,
)
from r2d2_kapture.training.loop import LOSS, Batch, Objective
from r2d2_kapture.training.losses import cosine_loss, peaky_loss
from r2d2_kapture.training.reward import THRESHOLDS, reward_loss
from r2d2_kapture.training.teacher import Taught, Teacher


class DistillationObjective(Objective):
    """What a teacher says of points, and the losses of R2D2 on repeatability.

    The teacher looks at the first images only; what it says of them holds for the
    second ones too, by the flow. Descriptors learn which points look alike, and the
    reliability which are found again where the teacher detects something. Keypoints of
    both images learn to lie at the same place.

    Args:
        loss: weights of the losses of R2D2, ap_base, radii and border.
        distillation: weights of the others.
        teacher: what is learned from.
        mixed: let convolutions compute in bfloat16; the losses are float32.
    """

    def __init__(
        self,
        loss: LossConfig,
        distillation: DistillationConfig,
        teacher: Teacher,
        *,
        mixed: bool,
    ) -> None:
        self._loss = loss
        self._distillation = distillation
        self._teacher = teacher
        self._mixed = mixed

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """The loss and its terms, of what R2D2Objective takes."""
        image1, image2, aflow = batch
        if self._distillation.keep_statistics:
            network.eval()
        first, second = dense_features(network, image1, image2, mixed=self._mixed)
        taught, targets = self._taught(image1, first.repeatability, aflow, generator)
        losses, correct = self._descriptors(first, second, taught, targets)
        weights, settings = self._loss, self._distillation
        reprojection, keypoints = reprojection_loss(
            first.repeatability,
            second.repeatability,
            aflow,
            least=settings.least_repeatability,
            border=weights.border,
        )
        terms = {
            **losses,
            "reprojection": reprojection,
            "cosine": cosine_loss(
                first.repeatability, second.repeatability, aflow, weights
            )[0],
            "peaky": peaky_loss(first.repeatability, weights.patch_size) / 2
            + peaky_loss(second.repeatability, weights.patch_size) / 2,
        }
        total = (
            settings.weight_match * terms["match"]
            + settings.weight_likeness * terms["likeness"]
            + settings.weight_reprojection * reprojection
            + weights.weight_reliability * terms["reliability"]
            + weights.weight_cosine * terms["cosine"]
            + weights.weight_peaky * terms["peaky"]
        )
        if settings.weight_reward:
            worth = self._reward(first, second, aflow, generator)
            total = total - settings.weight_reward * worth["reward"]
            terms |= worth
        return {
            LOSS: total,
            **terms,
            "correct": correct.sum() / max(len(correct), 1),
            "queries": total.new_tensor(len(correct)),
            "keypoints": total.new_tensor(keypoints),
        }

    def _reward(
        self,
        first: DenseFeatures,
        second: DenseFeatures,
        aflow: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The reward of matching, at a threshold drawn at random, and its precision."""
        settings = self._distillation
        low, high = THRESHOLDS
        drawn = torch.rand((), generator=generator).item()
        loss, right = reward_loss(
            first,
            second,
            aflow,
            threshold=low + (high - low) * drawn,
            cost=settings.wrong_cost,
            per_image=settings.reward_points,
            temperature=settings.reward_temperature,
            border=self._loss.border,
        )
        return {"reward": -loss, "right": right}

    def _taught(
        self,
        image1: Tensor,
        repeatability: Tensor,
        aflow: Tensor,
        generator: torch.Generator,
    ) -> tuple[Taught, Tensor]:
        """Points that both images show, and where the second shows them."""
        batch, _, height, width = image1.shape
        border, settings = self._loss.border, self._distillation
        low = image1.new_tensor([border, border])
        high = image1.new_tensor([width, height]) - 1 - border
        # drawn on the CPU, so that a seed means the same points on every device
        random = torch.rand(batch, settings.random_points, 2, generator=generator)
        extra = low + random.to(image1.device) * (high - low)
        if settings.own_points:
            own = best_maxima(repeatability, settings.own_points, border)
            # an image with fewer has its centre in their place
            own = torch.where(own.isnan(), (low + high) / 2, own)
            extra = torch.cat([own, extra], dim=1)
        taught = self._teacher(image1, settings.teacher_points, extra)
        targets = sample_rows(aflow, taught.images, taught.points)
        seen = torch.ones_like(taught.images, dtype=torch.bool)
        for places in (taught.points, targets):
            # a comparison with NaN is false
            seen &= ((places >= low) & (places <= high)).all(dim=1)
        return (
            Taught(**{name: value[seen] for name, value in vars(taught).items()}),
            targets[seen],
        )

    def _descriptors(
        self,
        first: DenseFeatures,
        second: DenseFeatures,
        taught: Taught,
        targets: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of matches, likeness and reliability, and which points match."""
        weights, settings = self._loss, self._distillation
        sides = ((first, taught.points), (second, targets))
        descriptors1, descriptors2 = (
            F.normalize(sample_rows(maps.descriptors, taught.images, places), dim=1)
            for maps, places in sides
        )
        similarity = descriptors1 @ descriptors2.t()
        near = close_points(taught.images, targets, weights.negative_radius)
        itself = torch.eye(len(near), dtype=torch.bool, device=near.device)
        match = match_loss(
            similarity,
            taught.descriptors,
            near & ~itself,
            temperature=settings.match_temperature,
            teacher_temperature=settings.teacher_temperature,
        )
        correct = correct_matches(
            similarity, close_points(taught.images, targets, weights.positive_radius)
        )
        reliable = torch.stack(
            [sample_rows(m.reliability, taught.images, p)[:, 0] for m, p in sides]
        ).mean(dim=0)
        # equation 6 of Revaud et al., AP replaced by what a teacher would keep of it
        kept = correct * (taught.scores >= settings.least_score)
        gain = (kept - weights.ap_base) * reliable
        reliability = 1 - weights.ap_base - gain.sum() / max(len(gain), 1)
        losses = {
            "match": match,
            "likeness": likeness_loss(similarity, taught.descriptors),
            "reliability": reliability,
        }
        return losses, correct


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
