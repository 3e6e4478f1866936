"""Distances of keypoints whose places are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r2d2_kapture.models.network import repeatability_from_logit
from r2d2_kapture.training.keypoints import best_maxima, reprojection_loss

SIDE = 32
FOUND = {"least": 0.5, "border": 4}


def peaks_at(points: list[tuple[float, float]]) -> Tensor:
    """(1, 1, SIDE, SIDE) repeatability whose odds are Gaussians about the points."""
    steps = torch.arange(SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    squared = torch.stack([(x - px) ** 2 + (y - py) ** 2 for px, py in points])
    odds = 20 * torch.exp(-squared / 2).sum(dim=0)
    return (odds / (1 + odds))[None, None]


def flow_of_shift(x: float, y: float) -> Tensor:
    rows, columns = torch.meshgrid(
        torch.arange(SIDE), torch.arange(SIDE), indexing="ij"
    )
    return torch.stack([columns + x, rows + y])[None].float()


def test_keypoints_that_moved_with_the_flow_are_no_distance_apart() -> None:
    places = [(9.0, 10.0), (18.0, 12.0), (13.0, 20.0)]
    moved = [(x + 3, y - 2) for x, y in places]
    loss, count = reprojection_loss(
        peaks_at(places), peaks_at(moved), flow_of_shift(3, -2), **FOUND
    )
    assert count == 3 and loss.item() == pytest.approx(0, abs=1e-4)


def test_distances_are_those_of_the_sub_pixel_peaks() -> None:
    # midway between two pixels and at a pixel the fit is exact
    first, second = peaks_at([(12.0, 12.0)]), peaks_at([(14.5, 13.0)])
    loss, count = reprojection_loss(first, second, flow_of_shift(2, 0), **FOUND)
    assert count == 1
    assert loss.item() == pytest.approx((0.5**2 + 1) ** 0.5, abs=1e-3)


def test_keypoints_without_a_counterpart_do_not_count() -> None:
    alone, elsewhere = peaks_at([(12.0, 12.0)]), peaks_at([(18.0, 12.0)])
    low = 0.4 * alone
    unknown = torch.full_like(flow_of_shift(0, 0), torch.nan)
    for second, flow in (
        (elsewhere, flow_of_shift(0, 0)),
        (low, flow_of_shift(0, 0)),
        (alone, flow_of_shift(17, 0)),  # behind the border
        (alone, unknown),
    ):
        first = alone.clone().requires_grad_()
        loss, count = reprojection_loss(first, second, flow, **FOUND)
        (gradient,) = torch.autograd.grad(loss, first)
        assert (loss.item(), count) == (0, 0) and not gradient.any()


def test_images_of_a_batch_are_apart() -> None:
    places = [(9.0, 10.0), (20.0, 21.0)]
    first = torch.cat([peaks_at(places[:1]), peaks_at(places[1:])])
    second = torch.cat([peaks_at(places[1:]), peaks_at(places[:1])])
    flow = flow_of_shift(0, 0).repeat(2, 1, 1, 1)
    assert reprojection_loss(first, second, flow, **FOUND)[1] == 0
    flow[0] += 11
    flow[1] -= 11
    loss, count = reprojection_loss(first, second, flow, **FOUND)
    assert count == 2 and loss.item() == pytest.approx(0, abs=1e-4)


def test_a_step_down_the_slope_brings_keypoints_together() -> None:
    second = peaks_at([(14.2, 13.1)])
    q = peaks_at([(12.0, 12.8)])
    logits = torch.log(torch.expm1(q / (1 - q))).requires_grad_()
    flow = flow_of_shift(2, 0)
    flow[:, :, 0, 0] = torch.nan  # what is unknown elsewhere does not spoil the slope

    def loss() -> Tensor:
        return reprojection_loss(
            repeatability_from_logit(logits), second, flow, **FOUND
        )[0]

    before = loss()
    (gradient,) = torch.autograd.grad(before, logits)
    assert gradient.isfinite().all()
    with torch.no_grad():
        logits -= 0.1 * gradient / gradient.norm()
    assert 0.1 < loss() < before


def test_the_best_maxima_of_each_image_come_first() -> None:
    higher = peaks_at([(9.3, 10.0)])
    lower = 0.8 * peaks_at([(20.0, 21.4)])
    at_border = peaks_at([(1.0, 16.0)])
    maps = torch.cat([torch.maximum(higher, lower), torch.maximum(lower, at_border)])
    points = best_maxima(maps, 3, border=4)
    expected = torch.tensor([[9.3, 10.0], [20.0, 21.4]])
    assert torch.allclose(points[0, :2], expected, atol=0.1)
    assert torch.equal(points[1, 0], points[0, 1])
    # what lies along the border, or is no peak at all, is none
    assert points[0, 2].isnan().all() and points[1, 1:].isnan().all()
