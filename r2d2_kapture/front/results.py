"""Tables and figures of the results of hpatches and pair_poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from r2d2_kapture.evaluation.curves import share_within
from r2d2_kapture.evaluation.pair_results import PairPoseRun
from r2d2_kapture.front.arguments import PathLike, one_or_more
from r2d2_kapture.pictures.homography import (
    MAX_THRESHOLD,
    AccuracyCurves,
    accuracy_figure,
)
from r2d2_kapture.stages.benchmark import hpatches_tables, pair_poses_tables
from r2d2_kapture.stages.benchmark.pair_poses import RESULTS_SUFFIX


def results_table(results: PathLike | Sequence[PathLike]) -> str:
    """Means of each run as a row of an aligned Markdown table.

    Args:
        results: files of one command, listed as ``outputs`` of its report:
            ``.poses.json`` of pair_poses; ``.npz`` and published caches of hpatches.

    Raises:
        ConfigError: no file is given.
        FeatureFormatError: a file has another format.
    """
    paths = [Path(path) for path in one_or_more(results)]
    if _of_pair_poses(paths):
        return pair_poses_tables.summary_table(pair_poses_tables.read_results(paths))
    return hpatches_tables.summary_table(hpatches_tables.read_results(paths))


def plot_results(results: PathLike | Sequence[PathLike]) -> Figure:
    """Plot the curves of runs: matching accuracy of hpatches, relative poses of
    pair_poses.

    Args:
        results: as for results_table.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ConfigError, FeatureFormatError: as results_table.
    """
    paths = [Path(path) for path in one_or_more(results)]
    if _of_pair_poses(paths):
        return _pose_figure(pair_poses_tables.read_results(paths))
    return hpatches_tables.mma_figure(hpatches_tables.read_results(paths))


def _of_pair_poses(paths: Sequence[Path]) -> bool:
    return any(path.name.endswith(RESULTS_SUFFIX) for path in paths)


def _pose_figure(runs: Sequence[PairPoseRun]) -> Figure:
    """The share of pairs whose relative pose is within 1 to 10 degrees."""
    thresholds = [float(t) for t in range(1, MAX_THRESHOLD + 1)]
    panel = "relative pose"
    methods = []
    for run in runs:
        errors = np.array([pair.pose_error for pair in run.pairs])
        shares = share_within(errors, thresholds).tolist()
        methods.append(
            AccuracyCurves(
                label=f"{run.label} ({len(run.pairs)} pairs)",
                published=False,
                curves={panel: dict(zip(thresholds, shares))},
            )
        )
    return accuracy_figure(
        methods, [panel], unit="degrees", accuracy="share of the pairs"
    )
