"""Settings of the training losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import Checked, bounded, require

QueryGrid = Literal["grid", "random"]
WarpOutside = Literal["masked", "border"]


@dataclass(frozen=True, kw_only=True)
class LossConfig(Checked):
    """Settings of R2D2's losses (Revaud et al., NeurIPS 2019, section 3).

    Attributes:
        patch_size: side N in pixels of the windows of the cosine and peaky losses.
        ap_bins: quantisation bins of the similarity, 0 to 1, in the average precision.
        ap_base: kappa, the average precision that a pixel left out (reliability 0) is
            credited with.
        weight_reliability: weight of the reliability loss.
        weight_cosine: weight of the cosine loss of repeatability windows.
        weight_peaky: weight of the peakiness loss of repeatability windows.
        query_step: pixels between queries along each axis.
        query_grid: ``grid`` puts queries on a regular grid, ``random`` at a random
            pixel of each of its cells.
        positive_radius: pixels from the true position within which the best match
            counts as correct.
        negative_radius: pixels from the true position from which a match is wrong.
        neighbourhood: radius in pixels around the true position in which all pixels are
            compared.
        border: pixels along the image border without queries and distractors.
        distractor_step: pixels between distractors, a grid over the second images of
            the batch.
        warp_outside: how the cosine loss treats pixels whose true position is unknown
            or outside the second image: ``masked`` leaves them out, ``border`` reads
            the nearest pixel (the last one where unknown), as the published training.
    """

    patch_size: int = 16
    ap_bins: int = bounded(20, at_least=2)
    ap_base: float = bounded(0.5, at_least=0, below=1)
    weight_reliability: float = bounded(1.0, at_least=0, below=math.inf)
    weight_cosine: float = bounded(1.0, at_least=0, below=math.inf)
    weight_peaky: float = bounded(1.0, at_least=0, below=math.inf)
    query_step: int = bounded(8, at_least=1)
    query_grid: QueryGrid = "random"
    positive_radius: int = 3
    negative_radius: int = 5
    neighbourhood: int = 7
    border: int = bounded(16, at_least=0)
    distractor_step: int = bounded(8, at_least=1)
    warp_outside: WarpOutside = "masked"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.patch_size >= 2 and self.patch_size % 2 == 0,
            f"--patch-size: found {self.patch_size}, expected an even number >= 2",
        )
        require(
            0 <= self.positive_radius < self.negative_radius <= self.neighbourhood,
            f"--positive-radius {self.positive_radius} --negative-radius "
            f"{self.negative_radius} --neighbourhood {self.neighbourhood}: expected "
            "0 <= positive-radius < negative-radius <= neighbourhood",
        )
