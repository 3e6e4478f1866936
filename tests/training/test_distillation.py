"""The objective with a teacher, here one that computes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.config.distillation import DistillationConfig
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.training.distillation import DistillationObjective
from r2d2_kapture.training.loop import LOSS
from tests.scenes.networks import random_network
from tests.training.teachers import CornerTeacher

SMALL = LossConfig(patch_size=8, border=6)
FEW = DistillationConfig(teacher_points=12, random_points=6)
SIDE = 48


def objective(teacher: CornerTeacher | None = None) -> DistillationObjective:
    return DistillationObjective(SMALL, FEW, teacher or CornerTeacher(), mixed=False)


def batch(shift: tuple[int, int] = (0, 0), seed: int = 0) -> list[Tensor]:
    """Two noisy pictures, and the same moved by whole pixels (x, y)."""
    generator = torch.Generator().manual_seed(seed)
    images = F.interpolate(
        torch.randn(2, 3, SIDE // 4, SIDE // 4, generator=generator), scale_factor=4
    )
    steps = torch.arange(SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    flow = torch.stack([x + shift[0], y + shift[1]]).expand(2, -1, -1, -1).clone()
    flow[(flow < 0) | (flow > SIDE - 1)] = torch.nan
    moved = torch.roll(images, shift[::-1], dims=(2, 3))
    return [images, moved, flow]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_loss_reaches_every_weight_and_is_finite_where_nothing_is_known() -> None:
    network = random_network("fast_r2d2").requires_grad_(True).train()
    terms = objective()(network, batch(), generator())
    terms[LOSS].backward()
    assert terms["queries"] > 10
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    image1, image2, flow = batch()
    network.zero_grad()
    terms = objective()(network, [image1, image2, flow * torch.nan], generator())
    terms[LOSS].backward()
    assert terms["queries"] == 0 and terms["match"] == 0 and terms["reprojection"] == 0
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_the_teacher_sees_the_first_images_and_its_points_follow_the_flow() -> None:
    teacher = CornerTeacher()
    images, moved, flow = batch(shift=(4, -3))
    network = random_network("r2d2")
    here = objective(teacher)(network, [images, moved, flow], generator())
    assert torch.equal(teacher.seen[0], images)
    astray = objective()(network, [images, moved, batch()[2]], generator())
    assert here["match"] < 0.5 * astray["match"]
    assert here["correct"] > 2 * astray["correct"]
    # those that leave the second image do not count
    every = len(images) * (FEW.teacher_points + FEW.random_points)
    assert astray["queries"] == every > here["queries"]


def test_its_own_keypoints_are_described_too() -> None:
    teacher = CornerTeacher()
    settings = dataclasses.replace(FEW, own_points=5)
    taught = DistillationObjective(SMALL, settings, teacher, mixed=False)
    terms = taught(random_network("r2d2"), batch(), generator())
    each = FEW.teacher_points + FEW.random_points + 5
    assert terms["queries"] == len(batch()[0]) * each


def test_a_few_steps_learn() -> None:
    network = random_network("fast_r2d2").requires_grad_(True).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        terms = objective()(network, batch(shift=(2, 1)), generator())
        terms[LOSS].backward()
        optimizer.step()
        values.append({name: term.item() for name, term in terms.items()})
    assert values[-1]["match"] < 0.9 * values[0]["match"]
    assert values[-1]["correct"] > values[0]["correct"]


def test_where_the_teacher_sees_nothing_nothing_is_reliable() -> None:
    network = random_network("r2d2").requires_grad_(True)
    slopes = []
    for score in (0.5, 0.01):  # above and below the least score
        terms = objective(CornerTeacher(around=score))(network, batch(), generator())
        network.zero_grad()
        terms["reliability"].backward()
        assert terms["correct"] > 0.9
        bias = network.clf.bias.grad
        assert bias is not None
        slopes.append(bias[1].item())
    assert slopes[0] < 0 < slopes[1]  # a step goes down the slope


def test_statistics_are_kept_where_asked() -> None:
    for kept in (True, False):
        network = random_network("fast_r2d2").requires_grad_(True).train()
        before = [buffer.clone() for buffer in network.buffers()]
        settings = dataclasses.replace(FEW, keep_statistics=kept)
        taught = DistillationObjective(SMALL, settings, CornerTeacher(), mixed=False)
        taught(network, batch(), generator())[LOSS].backward()
        same = [torch.equal(*pair) for pair in zip(network.buffers(), before)]
        assert all(same) is kept


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"teacher_points": 0}, "--teacher-points"),
        ({"match_temperature": 0.0}, "--match-temperature"),
        ({"weight_reprojection": -1.0}, "--weight-reprojection"),
        ({"weight_match": -1}, "--weight-match"),
        ({"own_points": -1}, "--own-points"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        DistillationConfig(**settings)  # type: ignore[arg-type]
