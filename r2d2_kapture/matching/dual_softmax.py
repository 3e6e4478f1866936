"""The matcher ``dual_softmax``: probabilities in place of similarities.

The probability of a match is the product of the softmax over its row and over its
column of the similarities divided by a temperature (Rocco et al., "Neighbourhood
Consensus Networks", NeurIPS 2018, section 3.1; Sun et al., "LoFTR", CVPR 2021, section
3.3). Its logarithm is 2 s / t - r - c, where r and c are the logarithms of the sums of
the row and of the column. That is a product of two vectors of D + 2 values, so the
matrix of all probabilities is never held.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from r2d2_kapture.config.match import DualSoftmaxConfig
from r2d2_kapture.matching.matcher import Matcher, MatchInput
from r2d2_kapture.matching.mutual_nn import block_rows, mutual_maxima
from r2d2_kapture.types import PairMatches


class DualSoftmax(Matcher):
    """Matches that are the most probable of their row and of their column."""

    settings_class: ClassVar[type] = DualSoftmaxConfig
    needs_keypoints: ClassVar[bool] = False

    def __init__(
        self,
        settings: DualSoftmaxConfig = DualSoftmaxConfig(),
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self.settings = settings

    @torch.inference_mode()
    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        """Match two images; scores are probabilities."""
        first, second = features1.descriptors, features2.descriptors
        scaled = first / self.settings.temperature
        row_sums, column_sums = _log_sums(scaled, second)
        rows, columns, log_probability = mutual_maxima(
            torch.cat([2 * scaled, -row_sums, torch.ones_like(row_sums)], dim=1),
            torch.cat([second, torch.ones_like(column_sums), -column_sums], dim=1),
        )
        keep = log_probability >= math.log(max(self.settings.min_probability, 1e-30))
        keep &= first[rows].any(1) & second[columns].any(1)
        indices = torch.stack([rows[keep], columns[keep]], dim=1)
        probability = log_probability[keep].exp().clamp_max(1)
        return PairMatches(
            indices=indices.cpu().numpy(),
            scores=probability.cpu().numpy().astype(np.float32, copy=False),
        )


def _log_sums(scaled: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of exp(scaled @ second.T), some rows at a time.

    Args:
        scaled: (N, D).
        second: (M, D).

    Returns:
        (N, 1) of the rows and (M, 1) of the columns.
    """
    rows = [scaled.new_zeros(0)]
    columns = scaled.new_full((len(second),), -torch.inf)
    parts = -(-len(scaled) // block_rows(scaled, len(second)))
    for block in scaled.tensor_split(max(parts, 1)):
        logits = block @ second.T
        rows.append(logits.logsumexp(1))
        columns = torch.logaddexp(columns, logits.logsumexp(0))
    return torch.cat(rows)[:, None], columns[:, None]
