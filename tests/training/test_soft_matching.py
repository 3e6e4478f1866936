"""Losses of a teacher's points: known values, what leaves them at their least."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.training.distillation import (
    close_points,
    correct_matches,
    likeness_loss,
    match_loss,
)

ALIKE = {"temperature": 0.1, "teacher_temperature": 0.1}


def unit_rows(count: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return F.normalize(rows, dim=1)


def no_pairs(count: int) -> Tensor:
    return torch.zeros(count, count, dtype=torch.bool)


def test_the_match_loss_of_known_descriptors() -> None:
    same = torch.full((4, 4), 0.7, dtype=torch.float64)
    loss = match_loss(same, unit_rows(4, 8), no_pairs(4), **ALIKE)
    assert loss.item() == pytest.approx(math.log(4))
    axes = torch.eye(5, dtype=torch.float64)
    sharp = {"temperature": 0.01, "teacher_temperature": 0.01}
    right = match_loss(axes, axes, no_pairs(5), **sharp)
    assert right.item() == pytest.approx(0, abs=1e-9)
    # the matches of the first two are mixed up: each is wrong by 1 / temperature
    mixed = match_loss(axes[[1, 0, 2, 3, 4]], axes, no_pairs(5), **sharp)
    assert mixed.item() == pytest.approx(2 / 5 / 0.01)


def test_the_match_loss_is_least_where_similarities_are_the_teachers() -> None:
    taught = unit_rows(6, 8)
    similarity = (taught @ taught.t()).requires_grad_()
    loss = match_loss(similarity, taught, no_pairs(6), **ALIKE)
    probabilities = F.softmax(similarity.detach() / 0.1, dim=1)
    entropy = -(probabilities * probabilities.log()).sum() / 6
    assert loss.item() == pytest.approx(entropy.item())
    (gradient,) = torch.autograd.grad(loss, similarity)
    assert gradient.abs().max() < 1e-9


def test_a_rotation_of_the_teachers_descriptors_is_as_like_as_they_are() -> None:
    taught = unit_rows(6, 8)
    rotation, _ = torch.linalg.qr(unit_rows(8, 8, 3))
    turned = taught @ rotation
    assert likeness_loss(turned @ turned.t(), taught).item() < 1e-25
    # one pair of thirty-six is off by 0.3
    similarity = taught @ taught.t()
    similarity[1, 4] += 0.3
    assert likeness_loss(similarity, taught).item() == pytest.approx(0.09 / 36)


def test_points_too_close_are_neither_right_nor_wrong() -> None:
    taught = unit_rows(6, 8)
    near = no_pairs(6)
    near[0, 1] = near[1, 0] = True
    similarity = unit_rows(6, 8, 1) @ unit_rows(6, 8, 2).t()
    similarity.requires_grad_()
    loss = match_loss(similarity, taught, near, **ALIKE)
    (gradient,) = torch.autograd.grad(loss, similarity)
    assert loss.isfinite()
    assert gradient[0, 1] == gradient[1, 0] == 0
    assert (gradient[~near] != 0).all()


def test_no_points_match_without_a_loss() -> None:
    empty = torch.empty(0, 0, requires_grad=True)
    loss = match_loss(empty, unit_rows(0, 4), no_pairs(0), **ALIKE)
    assert loss.item() == 0 == likeness_loss(empty, unit_rows(0, 4))
    assert correct_matches(empty, no_pairs(0)).shape == (0,)


def test_points_are_close_in_one_image_only() -> None:
    images = torch.tensor([0, 0, 0, 1])
    points = torch.tensor([[5.0, 5.0], [5.0, 8.0], [30.0, 5.0], [5.0, 5.0]])
    for radius, both in ((3.0, True), (2.9, False)):
        close = close_points(images, points, radius)
        expected = torch.eye(4, dtype=torch.bool)
        expected[0, 1] = expected[1, 0] = both
        assert torch.equal(close, expected)


def test_a_match_is_correct_by_its_nearest_descriptors() -> None:
    correct = torch.eye(4, dtype=torch.bool)
    correct[0, 1] = correct[1, 0] = True
    # the first two point at each other, the last two at each other
    found = correct_matches(torch.eye(4)[[1, 0, 3, 2]], correct)
    assert found.tolist() == [1, 1, 0, 0]
    # each finds itself, but the first prefers the third, which costs either a direction
    similarity = torch.eye(4)
    similarity[0, 2] = 2
    assert correct_matches(similarity, correct).tolist() == [0.5, 1, 0.5, 1]
