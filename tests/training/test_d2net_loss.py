"""The margin loss of D2-Net against its equations, cell by cell, and by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.training.d2net_loss import (
    D2NetLoss,
    margin_loss,
    soft_detection_scores,
)
from tests.training.d2net_maps import (
    HEIGHT,
    SMALL,
    WIDTH,
    flow_of_shift,
    random_maps,
)


def scores_by_cell(features: Tensor) -> list[list[float]]:
    """Equations (3) to (6), one cell at a time, outside of the map all zero."""
    channels, height, width = features.shape
    values = (features / features.max()).tolist()

    def at(k: int, i: int, j: int) -> float:
        inside = 0 <= i < height and 0 <= j < width
        return values[k][i][j] if inside else 0.0

    gamma = []
    for i in range(height):
        row = []
        for j in range(width):
            largest = max(at(k, i, j) for k in range(channels))
            products = []
            for k in range(channels):
                window = itertools.product((i - 1, i, i + 1), (j - 1, j, j + 1))
                alpha = math.exp(at(k, i, j)) / sum(
                    math.exp(at(k, *cell)) for cell in window
                )
                beta = at(k, i, j) / largest if largest else 0.0
                products.append(alpha * beta)
            row.append(max(products))
        gamma.append(row)
    total = sum(map(sum, gamma))
    return [[value / total for value in row] for row in gamma]


def loss_by_cell(
    maps1: Tensor, maps2: Tensor, flow: Tensor, config: D2NetTrainingConfig
) -> tuple[float, float, float, int]:
    """Equations (7) to (13), one match at a time: loss, p, n, number of matches."""
    scores = [scores_by_cell(maps) for maps in (maps1, maps2)]
    unit1, unit2 = F.normalize(maps1, dim=0), F.normalize(maps2, dim=0)
    cells = list(itertools.product(range(HEIGHT), range(WIDTH)))

    def distance(one: tuple[int, int], other: tuple[int, int]) -> float:
        difference = unit1[:, one[0], one[1]] - unit2[:, other[0], other[1]]
        return float(difference.norm())

    def far(one: tuple[int, int], other: tuple[int, int]) -> bool:
        shifts = abs(one[0] - other[0]), abs(one[1] - other[1])
        return max(shifts) > config.safe_radius

    weighted = weight_sum = 0.0
    positives, negatives, count = [], [], 0
    for a in cells:
        x, y = 4 * a[1] + 1.5, 4 * a[0] + 1.5
        # the nearest pixel: x.5 rounds to the even one, which is to the right
        moved = flow[:, round(y), round(x)] - 0.5
        if moved.isnan().any():
            continue
        b = tuple(round(float((at - 1.5) / 4)) for at in moved.flip(0))
        if b not in cells:
            continue
        p = distance(a, b)
        n = min(
            *(distance(a, other) for other in cells if far(other, b)),
            *(distance(other, b) for other in cells if far(other, a)),
        )
        weight = scores[0][a[0]][a[1]] * scores[1][b[0]][b[1]]
        weighted += weight * max(0.0, config.margin + p**2 - n**2)
        weight_sum += weight
        count += 1
        if weight > 0:
            positives.append(p)
            negatives.append(n)
    means = (sum(values) / len(values) for values in (positives, negatives))
    return weighted / weight_sum, *means, count


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_scores_are_those_of_the_equations(scale: float) -> None:
    features = random_maps(0, batch=2, scale=scale)
    found = soft_detection_scores(features)
    expected = torch.tensor([scores_by_cell(maps) for maps in features.detach()])
    torch.testing.assert_close(found.detach().float(), expected)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_a_lone_feature_is_the_keypoint() -> None:
    features = torch.zeros(1, 2, 5, 5)
    features[0, 1, 2, 2] = 3.0
    scores = soft_detection_scores(features)
    # nothing else has a channel that stands out
    assert scores[0, 2, 2] == 1.0 and scores.sum() == 1.0


def test_scores_do_not_depend_on_the_scale_nor_on_the_other_image() -> None:
    features = random_maps(1, batch=2)
    both = soft_detection_scores(features * torch.tensor([1.0, 1e5]).view(2, 1, 1, 1))
    alone = soft_detection_scores(features)
    torch.testing.assert_close(both, alone)


def test_a_border_is_no_better_than_the_middle() -> None:
    scores = soft_detection_scores(torch.ones(1, 3, 6, 6))
    assert scores.max() < 2 / 36
    e = math.e
    ratio = (9 * e) / (4 * e + 5)  # a corner has five neighbours that are 0
    assert scores[0, 0, 0] / scores[0, 2, 2] == pytest.approx(ratio)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_scores_and_slopes_are_finite_on_odd_maps(value: float) -> None:
    features = torch.full((1, 4, 6, 6), value)
    features[0, :, :3] = 0
    features.requires_grad_()
    scores = soft_detection_scores(features)
    (slope,) = torch.autograd.grad((scores**2).sum(), features)
    assert scores.isfinite().all() and slope.isfinite().all()
    if value < 1e-20:
        assert scores.sum() < 1e-6


@pytest.mark.parametrize("shift", [(4.0, -4.0), (2.9, 5.4)])
@pytest.mark.parametrize("radius", [1, 2])
def test_the_loss_is_that_of_the_equations(
    shift: tuple[float, float], radius: int
) -> None:
    config = D2NetTrainingConfig(
        margin=0.8, safe_radius=radius, least_correspondences=1
    )
    maps1, maps2 = random_maps(2, scale=40), random_maps(3, scale=7)
    flow = flow_of_shift(*shift)
    flow[0, :, 20:25, 10:15] = torch.nan
    terms = D2NetLoss(config)(maps1, maps2, flow)
    loss, p, n, count = loss_by_cell(
        maps1[0].detach(), maps2[0].detach(), flow[0], config
    )
    assert terms.total.item() == pytest.approx(loss, rel=1e-6) and loss > 0.1
    assert terms.positive_distance.item() == pytest.approx(p, rel=1e-6)
    assert terms.negative_distance.item() == pytest.approx(n, rel=1e-6)
    assert (terms.correspondences, terms.skipped) == (count, 0)


def test_two_matches_by_hand() -> None:
    """Unit vectors in the plane at known angles, on maps of two cells far apart."""

    def at(*degrees: float) -> Tensor:
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack([angles.cos(), angles.sin()])[:, None]

    config = D2NetTrainingConfig(safe_radius=0, margin=1.0)
    maps1, maps2 = at(0.0, 90.0), at(20.0, 60.0)
    cells = torch.tensor([0, 1])
    terms = margin_loss(maps1, maps2, (cells, cells), torch.tensor([3.0, 1.0]), config)
    assert terms is not None

    def squared(degrees: float) -> float:
        return 2 - 2 * math.cos(math.radians(degrees))

    # match 0: 20 degrees apart, wrong ones at 60 (cell 1 of 2) and 70 (cell 1 of 1);
    # match 1: 30 degrees apart, wrong ones at 70 and 60
    margins = 1 + squared(20) - squared(60), 1 + squared(30) - squared(60)
    assert terms.loss.item() == pytest.approx((3 * margins[0] + margins[1]) / 4)
    distances = math.sqrt(squared(20)), math.sqrt(squared(30))
    assert terms.positive_distance.item() == pytest.approx(sum(distances) / 2)
    assert terms.negative_distance.item() == pytest.approx(math.sqrt(squared(60)))


def test_exchanging_the_images_changes_nothing() -> None:
    maps1, maps2 = random_maps(4), random_maps(5)
    forth = D2NetLoss(SMALL)(maps1, maps2, flow_of_shift(8, -4))
    back = D2NetLoss(SMALL)(maps2, maps1, flow_of_shift(-8, 4))
    torch.testing.assert_close(forth.total, back.total)
    torch.testing.assert_close(forth.negative_distance, back.negative_distance)


def test_descriptors_apart_have_no_loss_and_those_alike_the_margin() -> None:
    flow = flow_of_shift(0, 0).float()
    maps = torch.eye(HEIGHT * WIDTH).view(1, -1, HEIGHT, WIDTH).requires_grad_()
    terms = D2NetLoss(SMALL)(maps, maps, flow)
    assert terms.total.item() == 0 and terms.positive_distance.item() == 0
    assert terms.negative_distance.item() == pytest.approx(math.sqrt(2))
    alike = torch.ones(1, 3, HEIGHT, WIDTH)
    config = D2NetTrainingConfig(safe_radius=1, margin=0.7, least_correspondences=4)
    assert D2NetLoss(config)(alike, alike, flow).total.item() == pytest.approx(0.7)


def test_the_slopes_are_those_of_the_loss() -> None:
    # no two features alike: at a tie the maximum has no slope to compare with
    maps1, maps2 = (
        torch.rand(1, 5, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
        for generator in (torch.Generator().manual_seed(s) for s in (6, 7))
    )
    maps1.requires_grad_(), maps2.requires_grad_()
    flow = flow_of_shift(4, 0)
    loss = D2NetLoss(SMALL)
    assert torch.autograd.gradcheck(
        lambda one, other: loss(one, other, flow).total,
        (maps1, maps2),
        eps=1e-7,
        atol=1e-5,
    )


def test_a_step_downhill_lowers_the_loss() -> None:
    maps1, maps2 = random_maps(8), random_maps(9)
    flow = flow_of_shift(4, 4)
    loss = D2NetLoss(SMALL)
    before = loss(maps1, maps2, flow).total
    slopes = torch.autograd.grad(before, (maps1, maps2))
    after = loss(maps1 - 0.05 * slopes[0], maps2 - 0.05 * slopes[1], flow).total
    assert after < before


def test_the_mean_is_over_the_pairs_that_count() -> None:
    maps1, maps2 = random_maps(10, batch=3), random_maps(11, batch=3)
    flow = flow_of_shift(4, -4, batch=3)
    flow[1] = torch.nan
    loss = D2NetLoss(SMALL)
    terms = loss(maps1, maps2, flow)
    alone = [loss(maps1[i : i + 1], maps2[i : i + 1], flow[i : i + 1]) for i in (0, 2)]
    torch.testing.assert_close(terms.total, (alone[0].total + alone[1].total) / 2)
    assert terms.skipped == 1
    assert terms.correspondences == sum(item.correspondences for item in alone)
    slope = torch.autograd.grad(terms.total, maps1)[0]
    assert slope[0].any() and slope[2].any() and not slope[1].any()


def flow_of_cells(columns: int) -> Tensor:
    """That of images alike, known in the first row of cells, so many of them."""
    flow = flow_of_shift(0, 0)
    flow[:, :, 4:] = torch.nan
    flow[:, :, :, 4 * columns :] = torch.nan
    return flow


@pytest.mark.parametrize(
    ("scale", "flow"),
    [
        (1.0, flow_of_cells(0)),
        (1.0, flow_of_cells(3)),
        (1.0, flow_of_shift(1e6, 0)),
        (0.0, flow_of_shift(0, 0)),
    ],
    ids=["unknown", "too few", "outside", "no features"],
)
def test_a_pair_without_information_is_skipped_and_counted(
    scale: float, flow: Tensor
) -> None:
    maps1, maps2 = random_maps(12, scale=scale), random_maps(13, scale=scale)
    terms = D2NetLoss(SMALL)(maps1, maps2, flow)
    assert (terms.skipped, terms.correspondences) == (1, 0)
    assert terms.total.item() == 0 and terms.negative_distance.item() == 0
    for slope in torch.autograd.grad(terms.total, (maps1, maps2)):
        assert not slope.any()  # NaN is not zero
    enough = D2NetLoss(SMALL)(random_maps(12), random_maps(13), flow_of_cells(4))
    assert (enough.skipped, enough.correspondences) == (0, 4)


def test_maps_without_a_wrong_match_are_skipped() -> None:
    config = D2NetTrainingConfig(safe_radius=9, least_correspondences=1)
    terms = D2NetLoss(config)(random_maps(0), random_maps(1), flow_of_shift(0, 0))
    assert terms.skipped == 1 and terms.total.item() == 0


def test_half_a_map_without_features_stays_finite() -> None:
    maps1, maps2 = random_maps(14).detach(), random_maps(15).detach()
    maps1[..., :4], maps2[:, :, 3:] = 0, 0
    maps1.requires_grad_(), maps2.requires_grad_()
    terms = D2NetLoss(SMALL)(maps1, maps2, flow_of_shift(0, 0))
    assert terms.skipped == 0 and terms.total.item() > 0
    for slope in torch.autograd.grad(terms.total, (maps1, maps2)):
        assert slope.isfinite().all()


def test_maps_of_bfloat16_are_compared_in_float32() -> None:
    maps1, maps2 = (random_maps(seed).detach().bfloat16() for seed in (16, 17))
    flow = flow_of_shift(4, 0).float()
    terms = D2NetLoss(SMALL)(maps1, maps2, flow)
    assert terms.total.dtype == torch.float32
    expected = D2NetLoss(SMALL)(maps1.float(), maps2.float(), flow)
    assert torch.equal(terms.total, expected.total)


def test_maps_of_other_sizes_are_refused() -> None:
    maps = random_maps(0)
    with pytest.raises(ValueError, match="expected as many of each"):
        D2NetLoss(SMALL)(maps, maps[..., 1:], flow_of_shift(0, 0))
