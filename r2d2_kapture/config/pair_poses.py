"""Settings of the evaluation on pairs of images with known poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.checks import Checked, bounded
from r2d2_kapture.config.match import MutualNearestConfig


@dataclass(frozen=True, kw_only=True)
class PairPosesConfig(Checked):
    """Settings of the evaluation on pairs of images with known poses.

    Attributes:
        matcher: settings of the matcher, whose type selects it.
        ransac_error: distance in pixels from the epipolar line up to which a match is
            an inlier of the estimated essential matrix.
        seed: random seed of that estimate, and of the sampling of pairs.
        max_pairs: greatest number of pairs, sampled at random from more unless they are
            listed; 0 takes all.
        refine: whether the second keypoint of each match is registered against the
            first one to a fraction of a pixel, before anything is measured.
        worst_pairs: number of pairs with the lowest share of correct matches whose
            matches are drawn.
    """

    matcher: Any = MutualNearestConfig()
    ransac_error: float = bounded(1.0, above=0)
    seed: int = bounded(0, at_least=0, below=2**31, note="0 to 2^31 - 1")
    max_pairs: int = bounded(1000, at_least=0)
    refine: bool = False
    worst_pairs: int = bounded(5, at_least=0)
