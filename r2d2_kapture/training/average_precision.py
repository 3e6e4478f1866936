"""Differentiable average precision of queries that have one correct match.

He et al., "Local descriptors optimized for average precision", CVPR 2018, section 3.2,
quantise similarities into bins b_1 > ... > b_M with triangular weights, and sum the
precision times the gain in recall over the bins. With one correct match per query, as
in Revaud et al. (NeurIPS 2019), recall gains in two neighbouring bins, k and k + 1, by
their shares t and 1 - t of the positive:

    AP = t * t / (t + n_k) + (1 - t) / (1 + n_{k+1}),

where n_k, the weight of the wrong matches in the bins down to k, is a sum of ramps that
rise from 0 at b_{k+1} to 1 at b_k. So neither histograms nor a tensor of queries x bins
x scores is needed, and only wrong matches within a bin of the positive have a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from r2d2_kapture.models.network import at_least_float32
from r2d2_kapture.training.sampler import Samples

SLICE_ON_CPU = 64
"""Queries whose neighbourhoods and scores stay in the cache of a core."""

SLICE_ON_GPU = 4096


def rank_positive(
    positive: Tensor, negatives: Tensor, bins: int
) -> tuple[Tensor, Tensor]:
    """Average precision of one positive among negatives, and its derivatives.

    Args:
        positive: (Q,) scores; those below 0 count as 0 and those above 1 as 1.
        negatives: (Q, S) scores, clamped likewise; overwritten by the derivatives of
            the average precision by them.
        bins: number of bin centres, from 1 down to 0.

    Returns:
        (Q,) average precision, and (Q,) its derivative by the positive.
    """
    steps = bins - 1
    depth = (1 - positive.clamp(0, 1)) * steps
    upper_bin = depth.floor()
    share = 1 - (depth - upper_bin)  # above 0, up to 1
    # heights in bins above the lower one of the two that share the positive
    lower_centre = steps - 1 - upper_bin
    height = negatives.clamp_(min=0).mul_(steps).sub_(lower_centre[:, None])
    above = share + height.clamp(0, 1).sum(dim=1)
    all_above = 1 + height.clamp(-1, 0).add_(1).sum(dim=1)
    ap = share * share / above + (1 - share) / all_above

    share_slope = share * (2 * above - share) / above**2 - 1 / all_above
    free = (positive > 0) & (positive < 1)
    upper_slope = -steps * (share / above) ** 2
    lower_slope = -steps * (1 - share) / all_above**2
    # scores clamped to 0 have whole heights, which this leaves without a gradient
    on_ramp = (height.abs() < 1) & (height != 0)
    slopes = torch.where(height > 0, upper_slope[:, None], lower_slope[:, None])
    torch.mul(slopes, on_ramp, out=negatives)
    return ap, steps * share_slope * free


def query_average_precision(
    descriptors1: Tensor, descriptors2: Tensor, samples: Samples, bins: int
) -> tuple[Tensor, Tensor]:
    """Average precision of the best correct match of each query.

    The wrong matches are those nearby and the distractors; distractors too close to the
    true position score 0, as in the published training. Computed in float32 at least,
    and differentiable by both maps, once.

    Args:
        descriptors1: (B * H * W, D) unit descriptors of the first images.
        descriptors2: (B * H * W, D) those of the second images.
        samples: the pixels to compare.
        bins: of the quantisation, see rank_positive.

    Returns:
        (Q,) average precision, and (Q,) int64 pixels of the best correct matches.
    """
    ap, best = _QueryAveragePrecision.apply(  # type: ignore[no-untyped-call]
        descriptors1, descriptors2, samples, bins
    )
    return ap, best


class _QueryAveragePrecision(torch.autograd.Function):
    """Keeps derivatives by scores and not the descriptors that were gathered; few are
    other than 0, and the backward pass gathers those again."""

    @staticmethod
    def forward(
        ctx: Any,
        descriptors1: Tensor,
        descriptors2: Tensor,
        samples: Samples,
        bins: int,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(descriptors1.device.type, enabled=False):
            queries = _rows(descriptors1, samples.queries)
            distractors = _rows(descriptors2, samples.distractors)
            ranking = _rank(queries, descriptors2, distractors, samples, bins)
        ctx.mark_non_differentiable(ranking.best)
        ctx.samples = samples
        ctx.pixels1, ctx.dtype1 = len(descriptors1), descriptors1.dtype
        ctx.save_for_backward(descriptors2, queries, distractors, *ranking[1:])
        return ranking.ap, ranking.best

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, ap_gradient: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        descriptors2, queries, distractors, *derivatives = ctx.saved_tensors
        best, positive_slopes, wrong_slopes = derivatives
        samples: Samples = ctx.samples
        nearby = len(samples.negative_offsets)
        by_query = ap_gradient[:, None]
        weighted = queries * by_query
        with torch.autocast(queries.device.type, enabled=False):
            towards = torch.mm(wrong_slopes[:, nearby:], distractors)
            gradient2 = queries.new_zeros(descriptors2.shape)
            gradient2.index_add_(
                0, samples.distractors, wrong_slopes[:, nearby:].t() @ weighted
            )
            for query, pixels, slopes in _nearby_slopes(
                best, positive_slopes, wrong_slopes[:, :nearby], samples
            ):
                rows = _rows(descriptors2, pixels).mul_(slopes)
                towards.index_add_(0, query, rows)
                gradient2.index_add_(0, pixels, weighted[query].mul_(slopes))
            gradient1 = queries.new_zeros(
                ctx.pixels1, queries.shape[1], dtype=ctx.dtype1
            )
            gradient1[samples.queries] = (towards * by_query).to(ctx.dtype1)
        return gradient1, gradient2.to(descriptors2.dtype), None, None


class _Ranking(NamedTuple):
    """What the forward pass finds out about its queries.

    Attributes:
        ap: (Q,) average precision.
        best: (Q,) pixels of the best correct matches.
        positive_slopes: (Q,) derivatives of ap by their scores.
        wrong_slopes: (Q, N + K) derivatives by the scores of the N wrong matches nearby
            and the K distractors.
    """

    ap: Tensor
    best: Tensor
    positive_slopes: Tensor
    wrong_slopes: Tensor


def _rank(
    queries: Tensor,
    descriptors2: Tensor,
    distractors: Tensor,
    samples: Samples,
    bins: int,
) -> _Ranking:
    """Score and rank the matches of all queries, in slices."""
    correct, nearby = len(samples.positive_offsets), len(samples.negative_offsets)
    offsets = torch.cat([samples.positive_offsets, samples.negative_offsets])
    # first holds scores, then their derivatives
    wrong = queries.new_empty(len(queries), nearby + len(distractors))
    torch.mm(queries, distractors.t(), out=wrong[:, nearby:])
    wrong[samples.near_queries, nearby + samples.near_distractors] = 0
    ap, positive_slopes = queries.new_empty(2, len(queries))
    best = torch.empty_like(samples.targets)
    for part in _slices(queries):
        pixels = samples.targets[part, None] + offsets
        around = _rows(descriptors2, pixels.flatten()).view(*pixels.shape, -1)
        # a row times a matrix takes half the time of a matrix times a column
        scores = torch.bmm(queries[part, None], around.transpose(1, 2)).squeeze(1)
        positive, choice = scores[:, :correct].max(dim=1)
        wrong[part, :nearby] = scores[:, correct:]
        ap[part], positive_slopes[part] = rank_positive(positive, wrong[part], bins)
        best[part] = pixels.gather(1, choice[:, None]).squeeze(1)
    return _Ranking(ap, best, positive_slopes, wrong)


def _nearby_slopes(
    best: Tensor, positive_slopes: Tensor, wrong_slopes: Tensor, samples: Samples
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Queries, pixels around their targets, and derivatives (M, 1) other than 0 of the
    average precision by the score between the two."""
    yield torch.arange(len(best), device=best.device), best, positive_slopes[:, None]
    for part in _slices(wrong_slopes):
        query, offset = torch.nonzero(wrong_slopes[part], as_tuple=True)
        slopes = wrong_slopes[part][query, offset, None]
        query += part.start
        yield query, samples.targets[query] + samples.negative_offsets[offset], slopes


def _slices(queries: Tensor) -> Iterator[slice]:
    size = SLICE_ON_GPU if queries.is_cuda else SLICE_ON_CPU
    for start in range(0, len(queries), size):
        yield slice(start, start + size)


def _rows(descriptors: Tensor, pixels: Tensor) -> Tensor:
    """A copy of some descriptors of a map, in float32 at least."""
    return at_least_float32(descriptors.index_select(0, pixels))
