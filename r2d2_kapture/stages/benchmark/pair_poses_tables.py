"""Tables of results on image pairs of known pose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.errors import ConfigError
from r2d2_kapture.evaluation.pair_results import PairPoseRun, load_run
from r2d2_kapture.evaluation.tables import Row, csv_table, markdown_table
from r2d2_kapture.io.outputs.atomic import write_json_atomic, write_text_atomic

TABLE_STEM = "pair_poses"
SUFFIXES = ("md", "json", "csv")
COLUMNS = {
    "pairs": "pairs",
    "features": "features",
    "matches": "matches",
    **{f"epipolar@{t}": f"epi@{t}px" for t in (1, 2, 3)},
    **{f"AUC@{t}": f"AUC@{t}°" for t in (5, 10, 20)},
}
"""Numbers of the printed table and their titles."""

LEGEND = (
    "Means over pairs: epi@t matches within t px of the true epipolar line; AUC@t area "
    "below the share of pairs with a relative-pose error within t degrees. "
    "docs/evaluation.md defines them.\n"
)


def read_results(paths: Sequence[Path]) -> list[PairPoseRun]:
    """Read files of results, in order.

    Raises:
        FeatureFormatError: a file has another format.
        ConfigError: no file is given.
    """
    if not paths:
        raise ConfigError(
            "found no results, expected .poses.json files of this command"
        )
    return [load_run(path) for path in paths]


def summary_table(runs: Sequence[PairPoseRun]) -> str:
    """The means of every run, as an aligned Markdown table."""
    rows = [Row(names=(run.label,), values=run.values) for run in runs]
    return markdown_table(("features of",), COLUMNS, rows)


def write_tables(folder: Path, runs: Sequence[PairPoseRun]) -> list[Path]:
    """Write ``pair_poses.md``, ``pair_poses.json`` and, pair by pair, a CSV.

    Returns:
        Their paths.

    Raises:
        OutputError: the files cannot be written.
    """
    paths = [folder / f"{TABLE_STEM}.{suffix}" for suffix in SUFFIXES]
    write_text_atomic(paths[0], f"{summary_table(runs)}\n{LEGEND}")
    summaries = [
        {"label": run.label, "manifest": dict(run.manifest), "means": run.values}
        for run in runs
    ]
    write_json_atomic(paths[1], summaries)
    rows = [
        Row(names=(run.label, pair.image1, pair.image2), values=pair.values)
        for run in runs
        for pair in run.pairs
    ]
    write_text_atomic(paths[2], csv_table(("label", "image1", "image2"), rows))
    return paths


def remove_tables(folder: Path) -> None:
    """Remove the tables of an earlier run."""
    for suffix in SUFFIXES:
        (folder / f"{TABLE_STEM}.{suffix}").unlink(missing_ok=True)
