"""Average precision of one positive, against histograms and known rankings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r2d2_kapture.training import average_precision
from r2d2_kapture.training.average_precision import (
    query_average_precision,
    rank_positive,
)
from r2d2_kapture.training.sampler import Samples

BINS = 21
"""Bins a twentieth apart, so that scores are easily put onto their centres."""


def histogram_ap(positive: Tensor, negatives: Tensor, bins: int) -> Tensor:
    """He et al. literally: histograms of all scores, precision, recall."""
    scores = torch.cat([positive[:, None], negatives], dim=1).clamp(0, 1)
    centres = torch.linspace(1, 0, bins, dtype=scores.dtype)
    distance = (scores[:, None] - centres[:, None]).abs() * (bins - 1)
    weights = (1 - distance).clamp(min=0)
    correct, everything = weights[:, :, 0], weights.sum(dim=2)
    precision = correct.cumsum(1) / everything.cumsum(1).clamp(min=1e-16)
    return (precision * correct).sum(1)


@pytest.mark.parametrize(
    "positive, negatives, expected",
    [
        (0.8, [], 1),
        (0.8, [0.75, 0.3, -0.9], 1),
        (0.8, [0.85, 0.3], 1 / 2),
        (0.8, [0.85, 0.9, 1.0, 0.75], 1 / 4),
        (0.8, [0.8, 0.8, 0.1], 1 / 3),
        (0.0, [0.3, 0.0, -0.4, 0.5], 1 / 5),
        (-0.7, [0.3, -0.9], 1 / 3),
        (1.0, [0.95, 0.95], 1),
        (1.1, [1.0], 1 / 2),
        # half way between two centres: half the weight of the positive is found with
        # nothing above, all of it together with half of the negative
        (0.775, [0.775], 0.5 * 0.5 / 1 + 0.5 * 1 / 2),
    ],
)
def test_known_rankings(
    positive: float, negatives: list[float], expected: float
) -> None:
    ap, _ = rank_positive(
        torch.tensor([positive], dtype=torch.float64),
        torch.tensor([negatives], dtype=torch.float64),
        BINS,
    )
    assert ap.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bins", [2, 3, 20])
def test_agrees_with_histograms_and_autograd(bins: int) -> None:
    generator = torch.Generator().manual_seed(bins)
    scores = torch.randn(200, 31, generator=generator, dtype=torch.float64) / 2
    positive = scores[:, 0].clone().requires_grad_()
    negatives = scores[:, 1:].clone().requires_grad_()
    expected = histogram_ap(positive, negatives, bins)
    gradients = torch.autograd.grad(expected.sum(), [positive, negatives])
    slopes = negatives.detach().clone()
    ap, positive_slope = rank_positive(positive.detach(), slopes, bins)
    torch.testing.assert_close(ap, expected.detach())
    torch.testing.assert_close(positive_slope, gradients[0])
    torch.testing.assert_close(slopes, gradients[1])


def make_samples(
    queries: int, pixels: int, distractors: int, generator: torch.Generator
) -> Samples:
    """Random samples of maps of so many pixels, in one dimension for simplicity."""
    targets = torch.randint(6, pixels - 6, (queries,), generator=generator)
    places = torch.randperm(pixels, generator=generator)[:distractors]
    near = (targets[:, None] - places).abs() < 4
    near_queries, near_distractors = torch.nonzero(near, as_tuple=True)
    return Samples(
        queries=torch.randperm(pixels, generator=generator)[:queries],
        targets=targets,
        positive_offsets=torch.tensor([-1, 0, 1]),
        negative_offsets=torch.tensor([-6, -5, -4, 4, 5, 6]),
        distractors=places,
        near_queries=near_queries,
        near_distractors=near_distractors,
    )


def make_maps(
    pixels: int, dimension: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    maps = torch.randn(2, pixels, dimension, generator=generator, dtype=torch.float64)
    # a common direction, so that scores lie close together and ramps are met
    maps[..., 0] += 2
    first, second = torch.nn.functional.normalize(maps, dim=2)
    return first, second


def gathered_ap(
    descriptors1: Tensor, descriptors2: Tensor, samples: Samples, bins: int
) -> tuple[Tensor, Tensor]:
    """Query by query, by autograd."""
    aps, bests = [], []
    for i, (query, target) in enumerate(zip(samples.queries, samples.targets)):
        descriptor = descriptors1[query]
        correct = descriptors2[target + samples.positive_offsets] @ descriptor
        nearby = descriptors2[target + samples.negative_offsets] @ descriptor
        elsewhere = descriptors2[samples.distractors] @ descriptor
        too_close = samples.near_distractors[samples.near_queries == i]
        elsewhere = elsewhere.index_fill(0, too_close, 0)
        wrong = torch.cat([nearby, elsewhere])
        aps.append(histogram_ap(correct.max()[None], wrong[None], bins))
        bests.append(target + samples.positive_offsets[correct.argmax()])
    return torch.cat(aps), torch.stack(bests)


@pytest.mark.parametrize("slice_size", [7, 1000])
def test_maps_give_what_single_queries_give(
    slice_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(average_precision, "SLICE_ON_CPU", slice_size)
    generator = torch.Generator().manual_seed(0)
    samples = make_samples(40, 300, 25, generator)
    assert len(samples.near_queries) > 3
    maps = [m.requires_grad_() for m in make_maps(300, 8, generator)]
    weight = torch.rand(40, generator=generator, dtype=torch.float64)
    expected, expected_best = gathered_ap(maps[0], maps[1], samples, 20)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), maps)
    ap, best = query_average_precision(maps[0], maps[1], samples, 20)
    gradients = torch.autograd.grad((ap * weight).sum(), maps)
    torch.testing.assert_close(ap, expected)
    assert torch.equal(best, expected_best)
    for gradient, expected_gradient in zip(gradients, expected_gradients):
        assert expected_gradient.abs().max() > 0
        torch.testing.assert_close(gradient, expected_gradient)


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    samples = make_samples(3, 20, 4, generator)
    first, second = (m.requires_grad_() for m in make_maps(20, 3, generator))
    assert torch.autograd.gradcheck(
        lambda a, b: query_average_precision(a, b, samples, 5)[0], (first, second)
    )


def test_half_precision_maps_are_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(2)
    samples = make_samples(30, 200, 20, generator)
    half = [m.bfloat16().requires_grad_() for m in make_maps(200, 8, generator)]
    full = [m.detach().float().requires_grad_() for m in half]
    with torch.autocast("cpu", torch.bfloat16):
        ap, best = query_average_precision(half[0], half[1], samples, 20)
        gradients = torch.autograd.grad(ap.sum(), half)
    expected, expected_best = query_average_precision(full[0], full[1], samples, 20)
    assert ap.dtype == torch.float32
    assert torch.equal(ap, expected) and torch.equal(best, expected_best)
    for gradient, exact in zip(gradients, torch.autograd.grad(expected.sum(), full)):
        assert torch.equal(gradient, exact.bfloat16())


@pytest.mark.parametrize("queries, distractors", [(0, 5), (4, 0), (0, 0)])
def test_nothing_to_compare_is_a_result(queries: int, distractors: int) -> None:
    generator = torch.Generator().manual_seed(3)
    samples = make_samples(queries, 50, distractors, generator)
    maps = [m.requires_grad_() for m in make_maps(50, 4, generator)]
    ap, best = query_average_precision(maps[0], maps[1], samples, 20)
    gradients = torch.autograd.grad(ap.sum(), maps)
    assert ap.shape == best.shape == (queries,)
    expected = gathered_ap(maps[0], maps[1], samples, 20)[0] if queries else ap
    torch.testing.assert_close(ap, expected)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(bool(gradient.any()) == bool(queries) for gradient in gradients)


def test_a_step_along_the_gradient_raises_average_precision() -> None:
    generator = torch.Generator().manual_seed(4)
    samples = make_samples(40, 300, 25, generator)
    maps = [m.requires_grad_() for m in make_maps(300, 8, generator)]
    before = query_average_precision(maps[0], maps[1], samples, 20)[0].mean()
    steps = torch.autograd.grad(before, maps)
    moved = [m.detach() + 0.5 * step for m, step in zip(maps, steps)]
    after = query_average_precision(moved[0], moved[1], samples, 20)[0].mean()
    assert after > before + 0.01


def test_runs_are_repeatable_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(5)
    # many queries on few pixels: gradients meet in the same places
    samples = make_samples(150, 200, 100, generator)
    maps = [m.float().requires_grad_() for m in make_maps(200, 16, generator)]
    runs = []
    for _ in range(2):
        ap, _ = query_average_precision(maps[0], maps[1], samples, 20)
        runs.append((ap, *torch.autograd.grad(ap.sum(), maps)))
    assert all(torch.equal(a, b) for a, b in zip(*runs))
