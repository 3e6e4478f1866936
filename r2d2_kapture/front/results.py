"""Tables and figures of the results of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from r2d2_kapture.front.arguments import PathLike, one_or_more
from r2d2_kapture.stages.benchmark import HPATCHES, PRESENTATIONS, Presentation


def results_table(results: PathLike | Sequence[PathLike]) -> str:
    """Means of each run as a row of an aligned Markdown table.

    Args:
        results: files of one command, listed as ``outputs`` of its report:
            ``.poses.json`` of pair_poses; ``.npz`` and published caches of hpatches.

    Raises:
        ConfigError: no file is given.
        FeatureFormatError: a file has another format.
    """
    presentation, runs = _read(results)
    return presentation.table(runs)


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
    presentation, runs = _read(results)
    return presentation.figure(runs)


def _read(
    results: PathLike | Sequence[PathLike],
) -> tuple[Presentation[Any], list[Any]]:
    """Read results, with the presentation of their benchmark by their suffix."""
    paths = [Path(path) for path in one_or_more(results)]
    fitting = (
        one
        for one in PRESENTATIONS
        if any(path.name.endswith(one.suffix) for path in paths)
    )
    presentation: Presentation[Any] = next(fitting, HPATCHES)
    return presentation, presentation.read_all(paths)
