"""Benchmarks: homography sequences and pairs of known cameras."""

from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures
from r2d2_kapture.stages.benchmark.hpatches_tables import LEGEND as HPATCHES_LEGEND
from r2d2_kapture.stages.benchmark.hpatches_tables import TABLES as HPATCHES_TABLES
from r2d2_kapture.stages.benchmark.hpatches_tables import (
    read_results as read_homography_results,
)
from r2d2_kapture.stages.benchmark.pair_poses import RESULTS_SUFFIX as PAIR_POSES_SUFFIX
from r2d2_kapture.stages.benchmark.pair_poses_tables import (
    COLUMNS as PAIR_POSES_COLUMNS,
)
from r2d2_kapture.stages.benchmark.pair_poses_tables import LEGEND as PAIR_POSES_LEGEND
from r2d2_kapture.stages.benchmark.pair_poses_tables import (
    read_results as read_pair_pose_results,
)
from r2d2_kapture.stages.benchmark.worst_pictures import RECORD_NAME as WORST_RECORD

__all__ = [
    "HPATCHES_LEGEND",
    "HPATCHES_TABLES",
    "PAIR_POSES_COLUMNS",
    "PAIR_POSES_LEGEND",
    "PAIR_POSES_SUFFIX",
    "WORST_RECORD",
    "ExtractedFeatures",
    "read_homography_results",
    "read_pair_pose_results",
]
