"""The training losses of R2D2 (Revaud et al., NeurIPS 2019, section 3).

They compare the maps of two images whose pixels correspond by a known flow: descriptors
by their average precision, which the reliability learns to predict, and repeatability
by the likeness of its windows and by its peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.models.network import DenseFeatures, at_least_float32
from r2d2_kapture.training.average_precision import query_average_precision
from r2d2_kapture.training.sampler import sample_pixels

FLOOR = 1e-16
"""Least divisor, so that windows without signal have finite slopes."""


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The loss of a batch and what it is made of.

    Attributes:
        total: scalar to differentiate; connected to every map, with zero gradients
            where a term was left out.
        reliability: unweighted reliability loss, detached, as all that follow.
        cosine: unweighted cosine loss of repeatability windows.
        peaky: unweighted peakiness loss of repeatability windows.
        plain_ap: mean average precision of the queries, 0 to 1.
        queries: how many queries counted.
        skipped: terms left out because nothing was known of them in this batch
            (``reliability``, ``cosine``); their values are 0.
    """

    total: Tensor
    reliability: Tensor
    cosine: Tensor
    peaky: Tensor
    plain_ap: Tensor
    queries: int
    skipped: tuple[str, ...]


class R2D2Loss(nn.Module):
    """Reliability, cosine and peaky losses of a batch of image pairs.

    Computed in float32 at least, whatever the precision of the maps; fastest when they
    are laid out channels-last. Distractors come from the batch of this process only.
    """

    def __init__(self, config: LossConfig = LossConfig()) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        features1: DenseFeatures,
        features2: DenseFeatures,
        aflow: Tensor,
        generator: torch.Generator | None = None,
        plain_ap_weight: float = 0.0,
    ) -> LossTerms:
        """Compare two batches of maps.

        Args:
            features1: maps of the first images.
            features2: maps of the second images, of the same size.
            aflow: (B, 2, H, W) float32 position (x, y) in image 2 of each pixel of
                image 1, in pixels whose centre is the origin; NaN where unknown.
            generator: of the CPU, for random queries; None is torch's own.
            plain_ap_weight: weight of 1 - AP averaged, added for the sake of early
                training, when reliability near 0 hides the descriptors' gradient.

        Raises:
            ValueError: maps and flow differ in size.
        """
        for maps in (*features1, *features2):
            if maps.shape[2:] != aflow.shape[2:]:
                raise ValueError(
                    f"maps of {tuple(maps.shape[2:])} pixels, expected as many as the "
                    f"flow has, {tuple(aflow.shape[2:])}"
                )
        config = self.config
        repeatability1 = at_least_float32(features1.repeatability)
        repeatability2 = at_least_float32(features2.repeatability)
        reliability, plain_ap, queries = self._reliability(
            features1, features2, aflow, generator
        )
        cosine, windows_known = cosine_loss(
            repeatability1, repeatability2, aflow, config
        )
        peaky = (
            peaky_loss(repeatability1, config.patch_size)
            + peaky_loss(repeatability2, config.patch_size)
        ) / 2
        total = (
            config.weight_reliability * reliability
            + config.weight_cosine * cosine
            + config.weight_peaky * peaky
        )
        if queries and plain_ap_weight:
            total = total + plain_ap_weight * (1 - plain_ap)
        skipped = [] if queries else ["reliability"]
        if not windows_known:
            skipped.append("cosine")
        return LossTerms(
            total=total,
            reliability=reliability.detach(),
            cosine=cosine.detach(),
            peaky=peaky.detach(),
            plain_ap=plain_ap.detach(),
            queries=queries,
            skipped=tuple(skipped),
        )

    def _reliability(
        self,
        features1: DenseFeatures,
        features2: DenseFeatures,
        aflow: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, int]:
        """Reliability loss (equation 6), mean average precision and queries."""
        samples = sample_pixels(aflow, self.config, generator)
        ap, best = query_average_precision(
            _pixel_rows(features1.descriptors),
            _pixel_rows(features2.descriptors),
            samples,
            self.config.ap_bins,
        )
        reliable1 = features1.reliability.flatten().index_select(0, samples.queries)
        reliable2 = features2.reliability.flatten().index_select(0, best)
        reliability = (at_least_float32(reliable1) + at_least_float32(reliable2)) / 2
        base = self.config.ap_base
        # the mean of 1 - AP * R - base * (1 - R)
        losses = 1 - base - (ap - base) * reliability
        count = max(len(samples), 1)
        return losses.sum() / count, ap.sum() / count, len(samples)


def cosine_loss(
    repeatability1: Tensor, repeatability2: Tensor, aflow: Tensor, config: LossConfig
) -> tuple[Tensor, bool]:
    """One minus the mean cosine between windows of two repeatability maps (equation 2).

    The second map is warped onto the first; windows are N x N, N / 2 apart. Where a
    pixel's true position is not known, both maps count as 0 there, and windows weigh by
    how much of them is known.

    Args:
        repeatability1: (B, 1, H, W) of the first images.
        repeatability2: (B, 1, H, W) of the second images.
        aflow: (B, 2, H, W) position in image 2 of each pixel of image 1, or NaN.
        config: patch_size and warp_outside.

    Returns:
        The loss, 0 where no window is known at all, and whether one is.
    """
    size = config.patch_size
    warped, known = warp_map(repeatability2, aflow)
    if config.warp_outside == "border":
        known = torch.ones_like(known)
    first, second = repeatability1 * known, warped * known
    moments = torch.cat([first * second, first**2, second**2, known], dim=1)
    if min(moments.shape[2:]) < size:
        return 0 * moments.sum(), False
    means = F.avg_pool2d(moments, size, stride=size // 2)
    product, square1, square2, weight = means.unbind(dim=1)
    # one root each: that of the product of two tiny squares has an infinite gradient
    norms = torch.rsqrt(square1.clamp(min=FLOOR)), torch.rsqrt(square2.clamp(min=FLOOR))
    cosine = product * norms[0] * norms[1]
    total = weight.sum()
    return ((1 - cosine) * weight).sum() / total.clamp(min=FLOOR), bool(total > 0)


def warp_map(values: Tensor, aflow: Tensor) -> tuple[Tensor, Tensor]:
    """Read a map, bilinearly, where the pixels of another image come to lie.

    Args:
        values: (B, C, H2, W2) map of image 2.
        aflow: (B, 2, H, W) position (x, y) in image 2 of each pixel of image 1, in
            pixels whose centre is the origin; NaN where unknown.

    Returns:
        (B, C, H, W) the map as seen from image 1: outside image 2 its nearest pixel,
        where unknown its last; and (B, 1, H, W) 1 where the position is known and lies
        inside image 2, else 0. Both of the type of ``values``.
    """
    last = aflow.new_tensor([values.shape[3] - 1, values.shape[2] - 1])
    xy = aflow.permute(0, 2, 3, 1)
    # a comparison with NaN is false
    known = ((xy >= 0) & (xy <= last)).all(dim=3)
    xy = torch.where(torch.isnan(xy), last, xy)
    # grid_sample counts from -1 at the first pixel's centre to 1 at the last one's
    grid = (2 * xy / last.clamp(min=1) - 1).to(values.dtype)
    warped = F.grid_sample(values, grid, padding_mode="border", align_corners=True)
    return warped, known[:, None].to(values.dtype)


def peaky_loss(repeatability: Tensor, patch_size: int) -> Tensor:
    """One minus the mean height of peaks above their surroundings (equation 3).

    The map is smoothed by a 3 x 3 mean; then the maximum less the mean of the window of
    side N + 1 around every pixel, with zeros beyond the border, is averaged.

    Args:
        repeatability: (B, 1, H, W).
        patch_size: N, even.
    """
    reach = patch_size // 2
    side = patch_size + 1
    smooth = F.avg_pool2d(repeatability, 3, stride=1, padding=1)
    # rows, then columns: 2 N comparisons a pixel and not N * N
    peaks = F.max_pool2d(smooth, (side, 1), stride=1, padding=(reach, 0))
    peaks = F.max_pool2d(peaks, (1, side), stride=1, padding=(0, reach))
    # the mean of all windows' means weighs each pixel by the windows that hold it
    windows = _windows_over(smooth.shape[2], reach, smooth)[:, None] * _windows_over(
        smooth.shape[3], reach, smooth
    )
    return 1 - (peaks.mean() - (smooth * windows).mean() / side**2)


def _windows_over(length: int, reach: int, like: Tensor) -> Tensor:
    """(length,) how many windows reaching so far to both sides hold each position."""
    position = torch.arange(length, device=like.device, dtype=like.dtype)
    first = (position - reach).clamp(min=0)
    last = (position + reach).clamp(max=length - 1)
    return last - first + 1


def _pixel_rows(maps: Tensor) -> Tensor:
    """Maps (B, D, H, W) as (B * H * W, D): a view of channels-last ones."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
