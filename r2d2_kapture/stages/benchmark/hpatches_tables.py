"""Tables and plots of homography results, ours and published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from matplotlib.figure import Figure

from r2d2_kapture.errors import ConfigError
from r2d2_kapture.evaluation.sequences import Kind
from r2d2_kapture.evaluation.summary import MMA, OVERALL, RunSummary, read_summary
from r2d2_kapture.evaluation.tables import Row, csv_table, markdown_table
from r2d2_kapture.io.outputs.atomic import write_json_atomic, write_text_atomic
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.homography import AccuracyCurves, accuracy_figure

GROUPS = (OVERALL, "illumination", "viewpoint")
TABLE_STEM = "hpatches"
SUFFIXES = ("md", "csv", "json")
PLOT_NAME = "mma.png"
PLOT_SUFFIXES = (".png", ".pdf", ".svg")
TABLES: tuple[dict[str, str], ...] = (
    {
        "pairs": "pairs",
        "features": "features",
        "matches": "matches",
        **{f"MMA@{t}": f"MMA@{t}" for t in (1, 2, 3, 5, 10)},
    },
    {
        "repeatability@3": "rep@3",
        "M-score@3": "M-s@3",
        **{f"homography@{t}": f"H@{t}" for t in (1, 3, 5)},
        **{f"AUC@{t}": f"AUC@{t}" for t in (1, 3, 5)},
    },
)
"""Numbers of the printed tables and their titles; CSV and JSON hold all."""

LEGEND = (
    "Means over pairs: MMA@t matches within t px of the truth; rep@t repeatability; "
    "M-s@t matching score; H@t homographies with a corner error within t px, AUC@t the "
    "area below that share. docs/evaluation.md defines them.\n"
)


def read_results(paths: Sequence[Path]) -> list[RunSummary]:
    """Read files of results, in order.

    Raises:
        FeatureFormatError: a file is neither a result nor a published cache.
        ConfigError: no file is given.
    """
    if not paths:
        raise ConfigError("found no results, expected .npz files or published caches")
    return [read_summary(path) for path in paths]


def summary_table(runs: Sequence[RunSummary]) -> str:
    """The means of every run by group, as aligned Markdown tables."""
    found = {group for run in runs for group in run.groups}
    groups = [group for group in (OVERALL, *get_args(Kind)) if group in found]
    if len(groups) == 2:
        # all pairs are of one kind: overall would repeat it
        groups.remove(OVERALL)
    rows = [
        Row(names=(group, run.label), values=run.groups[group].values)
        for group in groups
        for run in runs
        if group in run.groups
    ]
    return _markdown(("pairs of", "features of"), rows)


def write_tables(folder: Path, runs: Sequence[RunSummary]) -> list[Path]:
    """Write ``hpatches.md``, ``hpatches.csv`` and ``hpatches.json``.

    Returns:
        Their paths.

    Raises:
        OutputError: the files cannot be written.
    """
    sequences = [
        Row(names=(run.label, name), values=group.values)
        for run in runs
        for name, group in run.sequences.items()
    ]
    groups = [
        Row(names=(run.label, name), values=group.values)
        for run in runs
        for name, group in run.groups.items()
    ]
    paths = [folder / f"{TABLE_STEM}.{suffix}" for suffix in SUFFIXES]
    text = f"{summary_table(runs)}\n{LEGEND}"
    if sequences:
        by_sequence = _markdown(("features of", "sequence"), sequences)
        text += f"\nBy sequence:\n\n{by_sequence}"
    write_text_atomic(paths[0], text)
    write_text_atomic(paths[1], csv_table(("label", "group"), groups + sequences))
    write_json_atomic(paths[2], [_to_json(run) for run in runs])
    return paths


def _markdown(name_titles: tuple[str, str], rows: Sequence[Row]) -> str:
    """One table per group, with the runs that have results for it."""
    filled = [
        (columns, [row for row in rows if columns.keys() & row.values.keys()])
        for columns in TABLES
    ]
    return "\n".join(
        markdown_table(name_titles, columns, found)
        for columns, found in filled
        if found
    )


def remove_tables(folder: Path) -> None:
    """Remove the tables and the plot of an earlier run."""
    for name in (*(f"{TABLE_STEM}.{suffix}" for suffix in SUFFIXES), PLOT_NAME):
        (folder / name).unlink(missing_ok=True)


def check_plot_path(path: Path) -> None:
    """Check before the work begins that a plot can be written to a path.

    Raises:
        ConfigError: it is a folder, or has another suffix.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES or path.is_dir():
        found = "a folder" if path.is_dir() else repr(path.suffix)
        raise ConfigError(
            f"--plot {path}: found {found}, expected a file with the suffix "
            f"{', '.join(PLOT_SUFFIXES)}"
        )


def plot(runs: Sequence[RunSummary], path: Path) -> None:
    """Write the figure of mma_figure.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    save(mma_figure(runs), path)


def mma_figure(runs: Sequence[RunSummary]) -> Figure:
    """The accuracy of all runs: overall, illumination, viewpoint."""
    methods = [
        AccuracyCurves(
            label=f"{run.label} ({run.groups[OVERALL].pairs} pairs)",
            published=run.published,
            curves={name: group.curves[MMA] for name, group in run.groups.items()},
        )
        for run in runs
    ]
    return accuracy_figure(methods, GROUPS)


def _to_json(run: RunSummary) -> dict[str, Any]:
    """A run with its weights, settings, seed and versions as plain values."""
    return {
        "label": run.label,
        "source": str(run.source),
        "published": run.published,
        "manifest": dict(run.manifest),
        "groups": {name: group.values for name, group in run.groups.items()},
        "sequences": {name: group.values for name, group in run.sequences.items()},
    }
