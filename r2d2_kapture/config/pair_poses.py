"""Settings of the evaluation on pairs of images with known poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.match import MutualNearestConfig


@dataclass(frozen=True, kw_only=True)
class PairPosesConfig:
    """Settings of the evaluation on pairs of images with known poses.

    Attributes:
        matcher: settings of the matcher, whose type selects it.
        ransac_error: distance in pixels from the epipolar line up to which a match is
            an inlier of the estimated essential matrix.
        seed: random seed of that estimate, and of the sampling of pairs.
        max_pairs: greatest number of pairs, sampled at random from more unless they are
            listed; 0 takes all.
        worst_pairs: number of pairs with the lowest share of correct matches whose
            matches are drawn.
    """

    matcher: Any = MutualNearestConfig()
    ransac_error: float = 1.0
    seed: int = 0
    max_pairs: int = 1000
    worst_pairs: int = 5

    def __post_init__(self) -> None:
        require(
            self.ransac_error > 0,
            f"--ransac-error: found {self.ransac_error}, expected more than 0",
        )
        for name in ("seed", "max_pairs", "worst_pairs"):
            value = getattr(self, name)
            require(
                value >= 0, f"--{name.replace('_', '-')}: found {value}, expected >= 0"
            )
