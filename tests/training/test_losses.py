"""Losses against the published numbers and against loops over pixels."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.network import DenseFeatures
from r2d2_kapture.models.registry import Architecture, build_network
from r2d2_kapture.training.losses import (
    R2D2Loss,
    cosine_loss,
    peaky_loss,
)
from r2d2_kapture.training.sampler import sample_pixels

HEIGHT, WIDTH = 48, 56
SMALL = LossConfig(query_grid="grid", query_step=4, distractor_step=4, patch_size=8)


def flow_of_shift(
    x: float, y: float, batch: int = 2, dtype: torch.dtype = torch.float64
) -> Tensor:
    rows, columns = torch.meshgrid(
        torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij"
    )
    flow = torch.stack([columns + x, rows + y]).to(dtype)
    return flow.expand(batch, -1, -1, -1).clone()


def random_features(
    seed: int, batch: int = 2, dtype: torch.dtype = torch.float64
) -> DenseFeatures:
    """Leaves, laid out channels-last as a network's maps are."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, 8, HEIGHT, WIDTH, generator=generator, dtype=dtype)
    maps[:, 0] += 2
    confidences = torch.rand(
        2, batch, 1, HEIGHT, WIDTH, generator=generator, dtype=dtype
    )
    descriptors = F.normalize(maps, dim=1).to(memory_format=torch.channels_last)
    return DenseFeatures(
        descriptors.requires_grad_(),
        confidences[0].clone().requires_grad_(),
        confidences[1].clone().requires_grad_(),
    )


def gradients(total: Tensor, *features: DenseFeatures) -> list[Tensor]:
    """Gradients of every map; fails where one is not connected."""
    leaves = [leaf for maps in features for leaf in maps]
    return list(torch.autograd.grad(total, leaves))


def test_agrees_with_the_published_losses(shared: Path) -> None:
    with np.load(shared / "reference" / "losses" / "r2d2_losses.npz") as stored:
        data = {name: torch.from_numpy(stored[name]) for name in stored}
    names = [f"{kind}{image}" for image in (1, 2) for kind in ("f", "rel", "rep")]
    leaves = [data[name].requires_grad_() for name in names]
    loss = R2D2Loss(LossConfig(query_grid="grid", warp_outside="border"))
    terms = loss(DenseFeatures(*leaves[:3]), DenseFeatures(*leaves[3:]), data["aflow"])
    assert terms.queries == 48 and terms.skipped == ()
    for value, name in (
        (terms.reliability, "loss_reliability"),
        (terms.cosine, "loss_cosim"),
        (terms.peaky, "loss_peaky"),
        (terms.plain_ap, "ap"),
    ):
        torch.testing.assert_close(value, data[name].mean(), rtol=1e-5, atol=0)
    for name, gradient in zip(names, torch.autograd.grad(terms.total, leaves)):
        expected = data[f"grad_{name}"]
        assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def loop_over_queries(
    first: DenseFeatures, second: DenseFeatures, aflow: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Reliability loss and mean average precision, one query at a time."""
    pixels = sample_pixels(aflow, config).queries
    centres = torch.linspace(1, 0, config.ap_bins, dtype=torch.float64)
    distractors = [
        (image, y, x)
        for image in range(len(aflow))
        for y in range(config.border, HEIGHT - config.border, config.distractor_step)
        for x in range(config.border, WIDTH - config.border, config.distractor_step)
    ]
    losses, aps = [], []
    for pixel in pixels.tolist():
        image, y, x = pixel // (HEIGHT * WIDTH), pixel // WIDTH % HEIGHT, pixel % WIDTH
        query = first.descriptors[image, :, y, x]
        target_x, target_y = aflow[image, :, y, x].round().int().tolist()
        positives, places, negatives = [], [], []
        for dy in range(-7, 8):
            for dx in range(-7, 8):
                distance = math.hypot(dx, dy)
                place = (target_y + dy, target_x + dx)
                score = query @ second.descriptors[image, :, place[0], place[1]]
                if distance <= 3:
                    positives.append(score)
                    places.append(place)
                elif 5 <= distance <= 7:
                    negatives.append(score)
        for other, other_y, other_x in distractors:
            score = query @ second.descriptors[other, :, other_y, other_x]
            close = math.hypot(other_x - target_x, other_y - target_y) < 5
            negatives.append(0 * score if other == image and close else score)
        best = int(torch.stack(positives).argmax())
        scores = torch.stack([positives[best], *negatives]).clamp(0, 1)
        distance_in_bins = (scores - centres[:, None]).abs() * (config.ap_bins - 1)
        weights = (1 - distance_in_bins).clamp(min=0)
        found = weights.sum(1).cumsum(0) + 1e-16
        ap = (weights[:, 0].cumsum(0) / found * weights[:, 0]).sum()
        reliability = (
            first.reliability[image, 0, y, x]
            + second.reliability[image, 0, places[best][0], places[best][1]]
        ) / 2
        aps.append(ap)
        losses.append(1 - ap * reliability - config.ap_base * (1 - reliability))
    return torch.stack(losses).mean(), torch.stack(aps).mean()


def test_reliability_loss_agrees_with_a_loop() -> None:
    config = dataclasses.replace(
        SMALL, ap_base=0.3, ap_bins=15, weight_cosine=0, weight_peaky=0
    )
    first, second = random_features(0), random_features(1)
    flow = flow_of_shift(2.3, -1.6)
    flow[0, :, 20:25, 20:30] = torch.nan
    terms = R2D2Loss(config)(first, second, flow, plain_ap_weight=0.7)
    expected, mean_ap = loop_over_queries(first, second, flow, config)
    assert 0.01 < mean_ap < 0.99
    torch.testing.assert_close(terms.reliability, expected.detach())
    torch.testing.assert_close(terms.plain_ap, mean_ap.detach())
    total = expected + 0.7 * (1 - mean_ap)
    torch.testing.assert_close(terms.total, total)
    # the loop knows nothing of the repeatability, ours has zero gradients there
    for ours, theirs in zip(
        gradients(terms.total, first, second),
        torch.autograd.grad(total, [*first, *second], allow_unused=True),
    ):
        torch.testing.assert_close(
            ours, torch.zeros_like(ours) if theirs is None else theirs
        )


def test_without_reliability_only_the_plain_term_teaches_descriptors() -> None:
    first, second = random_features(0), random_features(1)
    first, second = (
        maps._replace(reliability=torch.zeros_like(maps.reliability).requires_grad_())
        for maps in (first, second)
    )
    flow = flow_of_shift(0, 0)
    terms = R2D2Loss(SMALL)(first, second, flow)
    assert terms.reliability.item() == pytest.approx(1 - SMALL.ap_base)
    assert not gradients(terms.total, first, second)[0].any()
    helped = R2D2Loss(SMALL)(first, second, flow, plain_ap_weight=1)
    assert gradients(helped.total, first, second)[0].any()


def masked_cosine(
    first: Tensor, warped: Tensor, known: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Window by window: cosine of the known pixels, weighed by how many they are."""
    losses, weights = [], []
    for image in range(len(first)):
        for top in range(0, HEIGHT - size + 1, size // 2):
            for left in range(0, WIDTH - size + 1, size // 2):
                window = (image, 0, slice(top, top + size), slice(left, left + size))
                inside = known[window]
                if inside.any():
                    a, b = first[window][inside], warped[window][inside]
                    losses.append(1 - a @ b / (a.norm() * b.norm()))
                    weights.append(inside.sum())
    return torch.stack(losses), torch.stack(weights)


def test_cosine_loss_agrees_with_a_loop_and_ignores_unknown_pixels() -> None:
    first, second = (random_features(seed).repeatability for seed in (0, 1))
    # whole pixels, so that warping is shifting; part of the flow leaves the image
    flow = flow_of_shift(3, -2)
    flow[1, :, 10:22, 5:30] = torch.nan
    known = torch.ones(2, 1, HEIGHT, WIDTH, dtype=torch.bool)
    known[:, :, :2] = known[:, :, :, -3:] = False
    known[1, :, 10:22, 5:30] = False
    warped = second.roll((2, -3), dims=(2, 3))
    losses, weights = masked_cosine(first, warped, known, 8)
    expected = (losses * weights).sum() / weights.sum()
    loss, any_known = cosine_loss(first, second, flow, SMALL)
    assert any_known
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, [first, second])
    theirs = torch.autograd.grad(expected, [first, second])
    torch.testing.assert_close(ours, theirs)
    assert not ours[0][~known].any()


def test_cosine_loss_is_zero_for_maps_that_match_under_the_flow() -> None:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    ramp = (0.01 * x + 0.02 * y)[None, None].double() + 1
    # a linear map is interpolated without error
    seen_from_first = ramp + 0.01 * 2.25 - 0.02 * 1.5
    flow = flow_of_shift(2.25, -1.5, batch=1)
    assert cosine_loss(seen_from_first, ramp, flow, SMALL)[0].abs() < 1e-12
    assert cosine_loss(ramp.flip(3), ramp, flow, SMALL)[0] > 1e-4


def test_outside_the_image_the_published_way_reads_the_border() -> None:
    config = dataclasses.replace(SMALL, warp_outside="border")
    first, second = (random_features(seed, batch=1).repeatability for seed in (0, 1))
    flow = flow_of_shift(3, -2, batch=1)
    flow[:, :, 10:14, 5:9] = torch.nan
    rows = torch.arange(HEIGHT).sub(2).clamp(0, HEIGHT - 1)
    columns = torch.arange(WIDTH).add(3).clamp(0, WIDTH - 1)
    warped = second[:, :, rows][:, :, :, columns].clone()
    warped[:, :, 10:14, 5:9] = second[0, 0, -1, -1]
    windows = [F.unfold(maps, 8, stride=4) for maps in (first, warped)]
    expected = 1 - F.cosine_similarity(*windows, dim=1).mean()
    torch.testing.assert_close(cosine_loss(first, second, flow, config)[0], expected)


@pytest.mark.parametrize("size", [2, 8, 16])
def test_peaky_loss_agrees_with_unfolded_windows(size: int) -> None:
    repeatability = random_features(0).repeatability
    smooth = F.unfold(repeatability, 3, padding=1).mean(dim=1)
    smooth = smooth.view(2, 1, HEIGHT, WIDTH)
    windows = F.unfold(smooth, size + 1, padding=size // 2)
    # zeros beyond the border never exceed a maximum, and count in a mean
    expected = 1 - (windows.max(dim=1).values - windows.mean(dim=1)).mean()
    loss = peaky_loss(repeatability, size)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, repeatability),
        torch.autograd.grad(expected, repeatability),
    )


def test_total_is_the_weighted_sum() -> None:
    config = dataclasses.replace(
        SMALL, weight_reliability=2, weight_cosine=3, weight_peaky=5
    )
    first, second = random_features(0), random_features(1)
    terms = R2D2Loss(config)(first, second, flow_of_shift(1, 1))
    expected = 2 * terms.reliability + 3 * terms.cosine + 5 * terms.peaky
    torch.testing.assert_close(terms.total.detach(), expected)
    for term in (terms.reliability, terms.cosine, terms.peaky, terms.plain_ap):
        assert not term.requires_grad and 0 < term < 1


def test_empty_masks_are_skipped_and_leave_the_other_terms_as_they_are() -> None:
    first, second = random_features(0), random_features(1)
    nowhere = torch.full((2, 2, HEIGHT, WIDTH), torch.nan)
    terms = R2D2Loss(SMALL)(first, second, nowhere, plain_ap_weight=1)
    assert terms.skipped == ("reliability", "cosine") and terms.queries == 0
    assert terms.reliability == terms.cosine == terms.plain_ap == 0
    torch.testing.assert_close(terms.total.detach(), terms.peaky)
    found = gradients(terms.total, first, second)
    assert all(gradient.isfinite().all() for gradient in found)
    assert [bool(g.any()) for g in found] == [False, False, True] * 2
    flow = flow_of_shift(0, 0)
    # known along the border only, where no query is
    flow[:, :, 16:-16, 16:-16] = torch.nan
    terms = R2D2Loss(SMALL)(first, second, flow)
    assert terms.skipped == ("reliability",)
    assert 0 < terms.cosine < 1
    large = dataclasses.replace(SMALL, patch_size=64)
    terms = R2D2Loss(large)(first, second, flow_of_shift(0, 0))
    assert terms.skipped == ("cosine",) and terms.queries > 0
    assert all(g.isfinite().all() for g in gradients(terms.total, first, second))
    flow = torch.full((2, 2, HEIGHT, WIDTH), torch.nan, dtype=torch.float64)
    flow[0, :, 20, 20] = 20
    terms = R2D2Loss(SMALL)(first, second, flow)
    # two single values always point the same way
    assert terms.skipped == () and terms.queries == 1
    assert terms.cosine == pytest.approx(0, abs=1e-12)
    assert all(g.isfinite().all() for g in gradients(terms.total, first, second))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_maps_have_finite_gradients(value: float) -> None:
    same = torch.zeros(2, 8, HEIGHT, WIDTH, dtype=torch.float64)
    same[:, 0] = 1  # every match is perfect
    flat = torch.full((2, 1, HEIGHT, WIDTH), value, dtype=torch.float64)
    maps = [
        DenseFeatures(*(m.clone().requires_grad_() for m in (same, flat, flat)))
        for _ in range(2)
    ]
    terms = R2D2Loss(SMALL)(*maps, flow_of_shift(0, 0), plain_ap_weight=1)
    assert terms.total.isfinite()
    assert all(g.isfinite().all() for g in gradients(terms.total, *maps))


@pytest.mark.parametrize("height", [1e-3, 1e-5, 1e-6, 1e-7, 1e-9])
def test_faint_maps_have_finite_gradients(height: float) -> None:
    maps = []
    for seed in (0, 1):
        features = random_features(seed, dtype=torch.float32)
        faint = (features.repeatability.detach() * height).requires_grad_()
        maps.append(features._replace(repeatability=faint))
    terms = R2D2Loss(SMALL)(*maps, flow_of_shift(0, 0, dtype=torch.float32))
    assert all(g.isfinite().all() for g in gradients(terms.total, *maps))


def test_bfloat16_networks_are_judged_in_float32() -> None:
    torch.manual_seed(0)
    network = build_network(Architecture(name="fast_r2d2", width=1, descriptor_dim=16))
    network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 2, 3, HEIGHT, WIDTH)
    flow = flow_of_shift(0.3, 0.2, dtype=torch.float32)
    loss = R2D2Loss(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        maps = [network(image) for image in images]
        terms = loss(*maps, flow)
    assert maps[0].descriptors.dtype == torch.bfloat16
    assert maps[0].repeatability.dtype == maps[0].reliability.dtype == torch.float32
    assert terms.total.dtype == terms.reliability.dtype == torch.float32
    exact = [DenseFeatures(*(m.detach().float() for m in f)) for f in maps]
    torch.testing.assert_close(
        loss(*exact, flow).total, terms.total.detach(), rtol=1e-6, atol=0
    )
    terms.total.backward()
    parameters = [*network.clf.parameters(), *network.sal.parameters()]
    parameters += [network.ops[0].weight]
    for parameter in parameters:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all() and parameter.grad.any()


def test_layout_of_the_maps_does_not_matter() -> None:
    first, second = random_features(0), random_features(1)
    planes = [
        DenseFeatures(*(m.detach().contiguous().requires_grad_() for m in maps))
        for maps in (first, second)
    ]
    flow = flow_of_shift(1.2, 0)
    a = R2D2Loss(SMALL)(first, second, flow).total
    b = R2D2Loss(SMALL)(*planes, flow).total
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(gradients(a, first, second), gradients(b, *planes))


def test_random_queries_repeat_with_their_generator() -> None:
    loss = R2D2Loss(dataclasses.replace(SMALL, query_grid="random"))
    first, second = random_features(0), random_features(1)
    flow = flow_of_shift(0.4, 0)
    runs = []
    for seed in (1, 1, 2):
        terms = loss(first, second, flow, torch.Generator().manual_seed(seed))
        runs.append([terms.total, *gradients(terms.total, first, second)])
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1]))
    assert runs[0][0] != runs[2][0]


def test_maps_of_another_size_than_the_flow_are_refused() -> None:
    first, second = random_features(0), random_features(1)
    with pytest.raises(ValueError, match=r"\(48, 56\).*\(48, 40\)"):
        R2D2Loss(SMALL)(first, second, flow_of_shift(0, 0)[..., :40])


@pytest.mark.parametrize(
    "values, flag",
    [
        ({"patch_size": 7}, "--patch-size"),
        ({"patch_size": 0}, "--patch-size"),
        ({"ap_bins": 1}, "--ap-bins"),
        ({"ap_base": 1}, "--ap-base"),
        ({"ap_base": -0.1}, "--ap-base"),
        ({"weight_peaky": -1}, "--weight-peaky"),
        ({"weight_cosine": math.nan}, "--weight-cosine"),
        ({"weight_reliability": math.inf}, "--weight-reliability"),
        ({"query_step": 0}, "--query-step"),
        ({"query_grid": "dense"}, "--query-grid"),
        ({"positive_radius": 5}, "--positive-radius"),
        ({"negative_radius": 8}, "--negative-radius"),
        ({"border": -1}, "--border"),
        ({"distractor_step": 0}, "--distractor-step"),
        ({"warp_outside": "zeros"}, "--warp-outside"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        LossConfig(**values)
