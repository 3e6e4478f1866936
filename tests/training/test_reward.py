"""What matching is worth, on maps whose keypoints are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from r2d2_kapture.models.network import DenseFeatures
from r2d2_kapture.training.distillation import DistillationObjective
from r2d2_kapture.training.loop import LOSS
from r2d2_kapture.training.reward import KEYPOINTS_A_SIDE, reward_loss
from tests.scenes.networks import random_network
from tests.training.teachers import CornerTeacher
from tests.training.test_distillation import FEW, SMALL, batch, generator

SIDE = 24
PLACES = torch.tensor([[6, 6], [16, 7], [8, 17]])
"""Keypoints (x, y), each with a descriptor of its own."""


def maps(scores: Tensor, descriptors: Tensor, images: int = 1) -> DenseFeatures:
    """Maps whose only maxima are PLACES, equal in all images."""
    x, y = PLACES.unbind(1)
    repeatability = torch.zeros(images, 1, SIDE, SIDE)
    repeatability[:, 0, y, x] = scores
    dense = torch.zeros(images, descriptors.shape[1], SIDE, SIDE)
    dense[..., y, x] = descriptors.t()
    return DenseFeatures(dense, torch.ones_like(repeatability), repeatability)


def flow(dx: float = 0.0, images: int = 1) -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.stack([x + dx, y + 0.0])[None].expand(images, -1, -1, -1)


def loss_of(first: DenseFeatures, second: DenseFeatures, aflow: Tensor) -> list[Tensor]:
    values = reward_loss(
        first,
        second,
        aflow,
        threshold=0.5,
        cost=20.0,
        per_image=8,
        temperature=0.03,
        border=2,
    )
    return list(values)


@pytest.mark.parametrize(
    "dx, gain, right", [(0, 1, 1), (1.5, 0.75, 1), (4, 0.25, 0), (6, -20, 0)]
)
def test_each_match_gains_by_its_distance_and_costs_if_it_is_wrong(
    dx: float, gain: float, right: int
) -> None:
    sure = maps(torch.ones(3), torch.eye(3))
    loss, share = loss_of(sure, sure, flow(dx))
    expected = -gain * len(PLACES) / KEYPOINTS_A_SIDE
    assert loss.item() == pytest.approx(expected, rel=0.01)
    assert share.item() == pytest.approx(right, abs=0.01)


def test_images_of_a_batch_do_not_gain_from_each_other() -> None:
    """The same descriptor in two images: half of the choices are wrong."""
    sure = maps(torch.ones(3), torch.eye(3), images=2)
    loss, share = loss_of(sure, sure, flow(images=2))
    assert share.item() == pytest.approx(0.5, abs=0.01)
    assert loss.item() > 0


def test_a_step_down_the_slope_hides_what_matches_wrongly() -> None:
    """The third keypoint looks in image 1 like the first of image 2, and is hidden;
    the first two are right, and come out."""
    scores = torch.full((3,), 0.5, requires_grad=True)
    looks = torch.eye(4)[:3]
    others = torch.eye(4)[[0, 1, 3]]
    confused = torch.stack([looks[0], looks[1], looks[0] * 0.9 + looks[2] * 0.1])
    first, second = maps(scores, confused), maps(torch.ones(3), others)
    loss_of(first, second, flow())[0].backward()
    slopes = scores.grad
    assert slopes is not None
    assert slopes[1] < 0 < slopes[2]


def test_the_objective_takes_it_where_it_has_a_weight() -> None:
    network = random_network("r2d2").requires_grad_(True).train()
    settings = dataclasses.replace(FEW, weight_reward=2.0, reward_points=20)
    rewarded, plain = (
        DistillationObjective(SMALL, chosen, CornerTeacher(), mixed=False)(
            network, batch(), generator()
        )
        for chosen in (settings, FEW)
    )
    assert set(rewarded) - set(plain) == {"reward", "right"}
    expected = plain[LOSS] - 2 * rewarded["reward"]
    torch.testing.assert_close(rewarded[LOSS], expected)
    images, moved, aflow = batch()
    unknown = DistillationObjective(SMALL, settings, CornerTeacher(), mixed=False)(
        network, [images, moved, aflow * torch.nan], generator()
    )
    unknown[LOSS].backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
