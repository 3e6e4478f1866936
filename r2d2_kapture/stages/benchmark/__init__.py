"""Benchmarks: homography sequences and pairs of known cameras."""

from typing import Any

from r2d2_kapture.stages.benchmark import hpatches, pair_poses
from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures
from r2d2_kapture.stages.benchmark.hpatches import shown_groups
from r2d2_kapture.stages.benchmark.presentation import Presentation, check_plot_path
from r2d2_kapture.stages.benchmark.runner import run, with_others
from r2d2_kapture.stages.benchmark.worst_pictures import RECORD_NAME as WORST_RECORD

HPATCHES = hpatches.PRESENTATION
PAIR_POSES = pair_poses.PRESENTATION
PRESENTATIONS: tuple[Presentation[Any], ...] = (HPATCHES, PAIR_POSES)
"""Those whose files of results are recognized by their suffix."""

__all__ = [
    "HPATCHES",
    "PAIR_POSES",
    "PRESENTATIONS",
    "WORST_RECORD",
    "ExtractedFeatures",
    "Presentation",
    "check_plot_path",
    "run",
    "shown_groups",
    "with_others",
]
