"""Settings of the evaluation of poses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from r2d2_kapture.config.checks import Checked, require

PoseFormat = Literal["gangnam", "robotcar", "aachen", "extended_cmu", "eth_ms", "rio10"]
"""How visuallocalization.net, and RIO10, name images in a text file of poses; the
module io/kapture/pose_files.py describes each."""

TextFormat = Literal["auto", PoseFormat]

GroupBy = Literal["none", "folder", "lists"]

DEFAULT_THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees, of visuallocalization.net (Sattler et al., CVPR 2018)."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Checked):
    """Settings of the evaluation of poses.

    Attributes:
        thresholds: pairs of a position error in the dataset's unit (metres) and a
            rotation error in degrees; an image is within a pair if it is within both.
        by: figures of groups of images too: ``folder`` groups by the first sub-folder
            in which image names differ; ``lists`` by --lists.
        lists: text files with one image name per line; each is a group, named like the
            file.
        align: align the estimate with the true poses by a robustly estimated similarity
            transform; for maps made without known poses.
        text_format: how text files name images; ``auto`` takes the form that matches
            most names.

    Raises:
        ConfigError: a setting is out of range, or contradicts another.
    """

    thresholds: tuple[tuple[float, float], ...] = DEFAULT_THRESHOLDS
    by: GroupBy = "none"
    lists: tuple[Path, ...] = ()
    align: bool = False
    text_format: TextFormat = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.thresholds)
            and all(
                len(pair) == 2 and all(0 < value < math.inf for value in pair)
                for pair in self.thresholds
            ),
            f"--thresholds: found {self.thresholds}, expected pairs of metres and "
            "degrees above 0, such as 0.25,2",
        )
        require(
            bool(self.lists) == (self.by == "lists"),
            f"--lists: found {len(self.lists)} with --by {self.by}, expected text "
            "files if and only if by is 'lists'",
        )
        names = [path.stem for path in self.lists]
        require(
            len(set(names)) == len(names),
            f"--lists: found {', '.join(names)}, expected a different file name each",
        )
