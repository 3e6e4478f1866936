"""Settings of the evaluation on homography sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.match import MutualNearestConfig


@dataclass(frozen=True, kw_only=True)
class HomographyConfig:
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
    ransac_error: float = 3.0
    seed: int = 0
    worst_pairs: int = 5

    def __post_init__(self) -> None:
        require(
            self.ransac_error > 0,
            f"--ransac-error: found {self.ransac_error}, expected more than 0",
        )
        require(self.seed >= 0, f"--seed: found {self.seed}, expected 0 or more")
        require(
            self.worst_pairs >= 0,
            f"--worst-pairs: found {self.worst_pairs}, expected 0 or more",
        )
