"""Settings of the evaluation on homography sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.checks import Checked, bounded
from r2d2_kapture.config.match import MutualNearestConfig


@dataclass(frozen=True, kw_only=True)
class HomographyConfig(Checked):
    """Settings of the evaluation on homography sequences.

    Attributes:
        matcher: settings of the matcher, whose type selects it.
        all_sequences: evaluate the eight large sequences of HPatches too, which the
            protocol of D2-Net leaves out.
        ransac_error: residual in pixels up to which a match is an inlier of the
            estimated homography.
        seed: random seed of that estimate.
        worst_pairs: number of pairs with the lowest accuracy whose matches are drawn.
    """

    matcher: Any = MutualNearestConfig()
    all_sequences: bool = False
    ransac_error: float = bounded(3.0, above=0)
    seed: int = bounded(0, at_least=0)
    worst_pairs: int = bounded(5, at_least=0)
