"""Which pixels of a pair are compared: queries, their neighbourhood, distractors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from r2d2_kapture.config.losses import LossConfig


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pixels of a batch, as indices into its maps flattened to (B * H * W, ...).

    Attributes:
        queries: (Q,) int64 pixels of the first images, no two alike.
        targets: (Q,) int64 pixels of the second images nearest to the true positions.
        positive_offsets: (P,) int64; a target plus one of them is a correct match.
        negative_offsets: (N,) int64; a target plus one of them is a wrong match nearby.
        distractors: (K,) int64 pixels of the second images of the whole batch.
        near_queries: (M,) int64 queries, by their place in ``queries``, whose true
            positions are too close to a distractor to call it wrong.
        near_distractors: (M,) int64 those distractors, by their place.
    """

    queries: Tensor
    targets: Tensor
    positive_offsets: Tensor
    negative_offsets: Tensor
    distractors: Tensor
    near_queries: Tensor
    near_distractors: Tensor

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.queries)


def sample_pixels(
    aflow: Tensor, config: LossConfig, generator: torch.Generator | None = None
) -> Samples:
    """Choose the pixels whose descriptors a batch compares.

    A query counts where its true position is known and its whole neighbourhood lies
    inside the second image, so that no sample has to be clamped or masked.

    Args:
        aflow: (B, 2, H, W) position (x, y) in image 2 of each pixel of image 1, in
            pixels whose centre is the origin; NaN where unknown.
        config: steps, radii and border.
        generator: of the CPU, for random queries; None is torch's own.
    """
    _, _, height, width = aflow.shape
    queries = _grid(aflow, config.query_step, config.border)
    if config.query_grid == "random":
        queries = _jitter(queries, aflow, config, generator)
    true_xy = aflow.permute(0, 2, 3, 1).reshape(-1, 2).index_select(0, queries)
    nearest = torch.round(true_xy)
    last = nearest.new_tensor([width - 1, height - 1]) - config.neighbourhood
    # a comparison with NaN is false: unknown positions go with those outside
    inside = ((nearest >= config.neighbourhood) & (nearest <= last)).all(dim=1)
    queries, xy = queries[inside], nearest[inside].long()
    image = queries.div(height * width, rounding_mode="floor")
    targets = (image * height + xy[:, 1]) * width + xy[:, 0]
    distractors = _grid(aflow, config.distractor_step, config.border)
    correct, wrong = config.positive_radius**2, config.negative_radius**2
    positive_offsets, negative_offsets, near_offsets = (
        _disk_offsets(least, most, width).to(aflow.device)
        for least, most in (
            (0, correct),
            (wrong, config.neighbourhood**2),
            (0, wrong - 1),
        )
    )
    near_queries, near_distractors = _near(
        targets, near_offsets, distractors, aflow.shape[0] * height * width
    )
    return Samples(
        queries=queries,
        targets=targets,
        positive_offsets=positive_offsets,
        negative_offsets=negative_offsets,
        distractors=distractors,
        near_queries=near_queries,
        near_distractors=near_distractors,
    )


def _grid(aflow: Tensor, step: int, border: int) -> Tensor:
    """Flat indices of every ``step``-th pixel inside the border of every image."""
    batch, _, height, width = aflow.shape
    image = torch.arange(batch, device=aflow.device)[:, None, None]
    y = _axis(height, step, border, aflow.device)[:, None]
    x = _axis(width, step, border, aflow.device)
    return ((image * height + y) * width + x).flatten()


def _axis(length: int, step: int, border: int, device: torch.device) -> Tensor:
    return torch.arange(border, max(length - border, border), step, device=device)


def _jitter(
    grid: Tensor, aflow: Tensor, config: LossConfig, generator: torch.Generator | None
) -> Tensor:
    """Move each pixel of a grid to a random one of the cell that starts there."""
    _, _, height, width = aflow.shape
    # drawn on the CPU, so that a seed means the same queries on every device
    random = torch.rand(2, len(grid), generator=generator).to(aflow.device)
    x = grid % width
    y = grid.div(width, rounding_mode="floor") % height
    cell = torch.stack([height - config.border - y, width - config.border - x])
    shift = (random * cell.clamp(max=config.query_step)).long()
    return grid + shift[0] * width + shift[1]


def _disk_offsets(least: int, most: int, width: int) -> Tensor:
    """Flat offsets of the pixels at squared distances from ``least`` to ``most``."""
    reach = math.isqrt(most)
    axis = torch.arange(-reach, reach + 1)
    squared = axis[:, None] ** 2 + axis**2
    y, x = torch.nonzero((squared >= least) & (squared <= most), as_tuple=True)
    return (y - reach) * width + x - reach


def _near(
    targets: Tensor, within: Tensor, distractors: Tensor, pixels: int
) -> tuple[Tensor, Tensor]:
    """Pairs of query and distractor where a target plus an offset of ``within`` is the
    distractor, looked up in a map of which distractor lies where."""
    lookup = torch.full((pixels,), -1, dtype=torch.int64, device=targets.device)
    lookup[distractors] = torch.arange(len(distractors), device=targets.device)
    found = lookup[targets[:, None] + within]
    query, offset = torch.nonzero(found >= 0, as_tuple=True)
    return query, found[query, offset]
