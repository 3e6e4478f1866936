"""Which pixels are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.training.average_precision import query_average_precision
from r2d2_kapture.training.sampler import Samples, sample_pixels

GRID = LossConfig(query_grid="grid")
RANDOM = LossConfig(query_grid="random")


def shifted_flow(
    batch: int, height: int, width: int, shift: tuple[float, float]
) -> Tensor:
    """Flow of images that are moved by (x, y) pixels."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = torch.stack([x + shift[0], y + shift[1]]).float()
    return flow.expand(batch, -1, -1, -1).clone()


def coordinates(pixels: Tensor, height: int, width: int) -> Tensor:
    """(N, 3) image, y, x of flat indices."""
    image, rest = pixels // (height * width), pixels % (height * width)
    return torch.stack([image, rest // width, rest % width], dim=1)


def test_grid_and_targets_of_a_known_shift() -> None:
    samples = sample_pixels(shifted_flow(2, 48, 64, (3.4, -2.6)), GRID)
    expected = [
        (image, y, x)
        for image in range(2)
        for y in range(16, 32, 8)
        for x in range(16, 48, 8)
    ]
    queries = coordinates(samples.queries, 48, 64)
    assert queries.tolist() == [list(place) for place in expected]
    assert len(samples) == len(expected)
    targets = coordinates(samples.targets, 48, 64)
    assert torch.equal(targets, queries + torch.tensor([0, -3, 3]))
    assert torch.equal(samples.distractors, samples.queries)


def test_rings_hold_all_pixels_at_their_distances() -> None:
    width = 64
    samples = sample_pixels(shifted_flow(1, 64, width, (0, 0)), GRID)
    center = 32 * width + 32
    for offsets, least, most in (
        (samples.positive_offsets, 0, 3),
        (samples.negative_offsets, 5, 7),
    ):
        found = {(int(p) % width - 32, int(p) // width - 32) for p in offsets + center}
        expected = {
            (x, y)
            for x in range(-9, 10)
            for y in range(-9, 10)
            if least <= np.hypot(x, y) <= most
        }
        assert found == expected
        assert len(offsets) == len(expected)


@pytest.mark.parametrize("config", [GRID, RANDOM])
def test_queries_have_whole_known_neighbourhoods(config: LossConfig) -> None:
    height, width = 80, 96
    flow = shifted_flow(2, height, width, (-11.2, 9.7))
    flow[0, :, 30:40, 40:60] = torch.nan
    flow[1, 0, :, 70:] = torch.inf
    samples = sample_pixels(flow, config, torch.Generator().manual_seed(0))
    image, y, x = coordinates(samples.queries, height, width).unbind(1)
    true_xy = flow[image, :, y, x]
    assert true_xy.isfinite().all()
    targets = coordinates(samples.targets, height, width)
    assert torch.equal(targets[:, 0], image)
    assert (targets[:, [2, 1]] - true_xy).abs().max() <= 0.5
    around = targets[:, 1:, None] + torch.tensor([-7, 7])
    assert around.min() >= 0
    assert (around[:, 0] < height).all() and (around[:, 1] < width).all()
    # and the others have not: every cell without a query has a reason
    candidates = sample_pixels(shifted_flow(2, height, width, (0, 0)), GRID).queries
    if config is GRID:
        left_out = set(candidates.tolist()) - set(samples.queries.tolist())
        assert left_out
        for pixel in left_out:
            i, row, column = coordinates(torch.tensor([pixel]), height, width)[0]
            px, py = flow[i, :, row, column].round()
            inside = 7 <= px <= width - 8 and 7 <= py <= height - 8
            assert not inside


@pytest.mark.parametrize("config", [GRID, LossConfig(neighbourhood=9)])
def test_neighbourhoods_may_touch_the_border(config: LossConfig) -> None:
    reach = config.neighbourhood
    flow = torch.full((1, 2, 49, 65), 30.0)
    for inside in (True, False):
        step = 0 if inside else 1
        for target in (
            (reach - step, 20),
            (64 - reach + step, 20),
            (20, reach - step),
            (20, 48 - reach + step),
        ):
            flow[0, :] = torch.tensor(target)[:, None, None]
            assert bool(len(sample_pixels(flow, config))) == inside


def test_random_queries_take_one_pixel_of_each_cell() -> None:
    flow = shifted_flow(3, 75, 90, (0, 0))  # the last cells are cut by the border
    cells = sample_pixels(flow, GRID).queries
    seen = set()
    for seed in range(20):
        samples = sample_pixels(flow, RANDOM, torch.Generator().manual_seed(seed))
        again = sample_pixels(flow, RANDOM, torch.Generator().manual_seed(seed))
        assert torch.equal(samples.queries, again.queries)
        moved = coordinates(samples.queries, 75, 90) - coordinates(cells, 75, 90)
        assert moved[:, 0].eq(0).all()
        assert moved[:, 1:].min() == 0 and moved[:, 1:].max() == 7
        image, y, x = coordinates(samples.queries, 75, 90).unbind(1)
        assert y.max() < 75 - 16 and x.max() < 90 - 16
        seen.add(tuple(samples.queries.tolist()))
    assert len(seen) == 20


def test_random_queries_come_from_torch_where_no_generator_is_given() -> None:
    flow = shifted_flow(1, 64, 64, (0, 0))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        first = sample_pixels(flow, RANDOM).queries
        second = sample_pixels(flow, RANDOM).queries
        torch.manual_seed(7)
        assert torch.equal(sample_pixels(flow, RANDOM).queries, first)
    assert not torch.equal(first, second)


def test_distractors_near_the_true_position_are_found() -> None:
    height, width = 70, 80
    flow = shifted_flow(2, height, width, (2.3, -1.4))
    config = LossConfig(query_grid="random", distractor_step=3)
    samples = sample_pixels(flow, config, torch.Generator().manual_seed(1))
    targets = coordinates(samples.targets, height, width)
    places = coordinates(samples.distractors, height, width)
    squared = ((targets[:, None, 1:] - places[:, 1:]) ** 2).sum(2)
    near = (squared < 25) & (targets[:, None, 0] == places[:, 0])
    found = set(zip(samples.near_queries.tolist(), samples.near_distractors.tolist()))
    assert found == {tuple(pair) for pair in torch.nonzero(near).tolist()}
    assert len(found) > len(samples)


@pytest.mark.parametrize("height, width", [(32, 64), (20, 64), (64, 8), (1, 1)])
def test_images_within_the_border_have_no_queries(height: int, width: int) -> None:
    for config in (GRID, RANDOM):
        samples = sample_pixels(shifted_flow(2, height, width, (0, 0)), config)
        assert len(samples) == len(samples.targets) == len(samples.distractors) == 0


def test_agrees_with_the_published_sampler(shared: Path) -> None:
    with np.load(shared / "reference" / "losses" / "r2d2_losses.npz") as stored:
        data = {name: torch.from_numpy(stored[name]) for name in stored}
    samples = sample_pixels(data["aflow"], GRID)
    assert len(samples) == data["sampler_mask"].sum() == 48
    first, second = (
        data[name].permute(0, 2, 3, 1).flatten(0, 2) for name in ("f1", "f2")
    )
    scores = published_scores(samples, first, second)
    # the order of the wrong matches nearby is nobody's business
    scores[:, 1:81] = scores[:, 1:81].sort(dim=1).values
    expected = data["sampler_scores"].clone()
    expected[:, 1:81] = expected[:, 1:81].sort(dim=1).values
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
    ap, best = query_average_precision(first, second, samples, 20)
    torch.testing.assert_close(ap, data["ap"], rtol=1e-5, atol=1e-6)
    reliability = (
        data["rel1"].flatten()[samples.queries] + data["rel2"].flatten()[best]
    ) / 2
    torch.testing.assert_close(reliability, data["sampler_qconf"].flatten())


def published_scores(samples: Samples, first: Tensor, second: Tensor) -> Tensor:
    """(Q, 1 + N + K) best positive, wrong matches nearby, distractors."""
    queries = first[samples.queries]
    around = [
        torch.einsum("qd,qsd->qs", queries, second[samples.targets[:, None] + offsets])
        for offsets in (samples.positive_offsets, samples.negative_offsets)
    ]
    distractors = queries @ second[samples.distractors].t()
    distractors[samples.near_queries, samples.near_distractors] = 0
    best = around[0].max(dim=1, keepdim=True).values
    return torch.cat([best, around[1], distractors], dim=1)
