"""Pages of benchmark results: homography sequences, and pairs of known poses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.pair_results import PairPoseRun
from r2d2_kapture.evaluation.summary import MMA, RunSummary
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.benchmark import (
    HPATCHES,
    PAIR_POSES,
    WORST_RECORD,
    Presentation,
    shown_groups,
)
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.charts import cumulative, lines
from r2d2_kapture.stages.report.images import thumbnail

PICTURE_SIDE = 1100
MOST_PAIRS = 500
"""Rows of the table of the worst pairs of known pose."""
PIXELS = 10
"""Largest threshold of the curves."""
SEQUENCE_COLUMNS = {"MMA@3": "MMA@3", "homography@3": "H@3"}


def homography_sections(folder: Path) -> list[page.Section]:
    """The sections of the output of kapture_r2d2_hpatches.

    Args:
        folder: with results of one or several runs.

    Raises:
        DatasetError: there are no results.
        FeatureFormatError: a result is broken.
    """
    runs = HPATCHES.read_all(_results(folder, HPATCHES))
    groups = shown_groups(runs)
    sections = [
        page.Section(
            "hpatches",
            "Accuracy on homography sequences",
            page.join(_accuracy(runs, groups)),
        )
    ]
    if any(run.sequences for run in runs):
        html = page.table(*_sequences(runs))
        sections.append(page.Section("hpatches-sequences", "Sequences", html))
    folders = [(run.label, run.source.with_suffix("")) for run in runs]
    return sections + _worst("hpatches", folders)


def pair_pose_sections(folder: Path) -> list[page.Section]:
    """The sections of the output of kapture_r2d2_pair_poses.

    Args:
        folder: with results of one or several runs.

    Raises:
        DatasetError: there are no results.
        FeatureFormatError: a result is broken.
    """
    paths = _results(folder, PAIR_POSES)
    runs = PAIR_POSES.read_all(paths)
    stems = [path.name.removesuffix(PAIR_POSES.suffix) for path in paths]
    errors = {
        run.label: np.array([pair.pose_error for pair in run.pairs]) for run in runs
    }
    html = page.join(
        [
            page.chart(
                cumulative(
                    errors,
                    x_title="error of the relative pose (degrees)",
                    of="pairs",
                    marks=(5, 10, 20),
                ),
                "Share of the pairs within each error of the relative pose",
                380,
                760,
            ),
            *_means(PAIR_POSES, runs),
        ]
    )
    sections = [page.Section("pair-poses", "Relative poses of image pairs", html)]
    sections.append(
        page.Section("pair-poses-pairs", "Pairs of known pose", page.join(_pairs(runs)))
    )
    folders = [(run.label, folder / stem) for run, stem in zip(runs, stems)]
    return sections + _worst("pair-poses", folders)


def _results(folder: Path, benchmark: Presentation[Any]) -> list[Path]:
    paths = sorted(folder.glob(f"*{benchmark.suffix}"))
    if not paths:
        raise DatasetError(
            f"{folder}: found no *{benchmark.suffix}, expected the --output of "
            f"kapture_r2d2_{benchmark.name}"
        )
    return paths


def _means(benchmark: Presentation[Any], runs: Sequence[Any]) -> Iterator[Markup]:
    """The tables that the command prints."""
    for columns in benchmark.columns:
        rows = [[*r.names, *_cells(r.values, columns)] for r in benchmark.means(runs)]
        yield page.table([*benchmark.titles, *columns.values()], rows)
    yield page.paragraph(benchmark.legend, "note")


def _accuracy(runs: Sequence[RunSummary], groups: Sequence[str]) -> Iterator[Markup]:
    yield page.side_by_side(
        page.chart(
            lines(
                {
                    run.label: _curve(run.groups[group].curves[MMA])
                    for run in runs
                    if group in run.groups
                },
                x_title=f"threshold (px), {group}",
                y_title="mean matching accuracy",
                y_range=(0, 1),
            ),
            f"Mean matching accuracy by threshold, {group}",
            360,
        )
        for group in groups
    )
    yield from _means(HPATCHES, runs)


def _curve(values: Mapping[float, float]) -> tuple[list[float], list[float]]:
    shown = sorted((t, value) for t, value in values.items() if t <= PIXELS)
    return [t for t, _ in shown], [value for _, value in shown]


def _sequences(
    runs: Sequence[RunSummary],
) -> tuple[list[str], list[list[page.Cell]]]:
    """A row for each sequence, the runs side by side."""
    names = sorted({name for run in runs for name in run.sequences})
    titles = ["sequence", "pairs"]
    titles += [
        f"{title}, {run.label}" for title in SEQUENCE_COLUMNS.values() for run in runs
    ]
    rows: list[list[page.Cell]] = []
    for name in names:
        found = [run.sequences[name] for run in runs if name in run.sequences]
        values = [
            run.sequences[name].values.get(column) if name in run.sequences else None
            for column in SEQUENCE_COLUMNS
            for run in runs
        ]
        rows.append([name, found[0].pairs, *values])
    return titles, rows


def _pairs(runs: Sequence[PairPoseRun]) -> Iterator[Markup]:
    """A table for each run, the worst pairs first."""
    for run in runs:
        worst = sorted(run.pairs, key=lambda pair: -pair.pose_error)[:MOST_PAIRS]
        rows: list[list[page.Cell]] = [
            [
                pair.image1,
                pair.image2,
                pair.matches,
                *pair.epipolar,
                *(
                    f"{error:.2f}" if np.isfinite(error) else None
                    for error in (pair.rotation_error, pair.translation_error)
                ),
            ]
            for pair in worst
        ]
        titles = ["image 1", "image 2", "matches"]
        titles += ["matches within 1 px", "within 2 px", "within 3 px"]
        titles += ["rotation error (deg)", "translation error (deg)"]
        cut = f", the {MOST_PAIRS} worst" if len(worst) < len(run.pairs) else ""
        yield page.folded(
            f"Pairs, features of {run.label}{cut}", page.table(titles, rows, tall=True)
        )


def _cells(values: Mapping[str, float], columns: Iterable[str]) -> list[page.Cell]:
    """Shares with three digits, counts with none."""
    return [
        (
            None
            if column not in values
            else values[column] if "@" in column else round(values[column])
        )
        for column in columns
    ]


def _worst(prefix: str, folders: Sequence[tuple[str, Path]]) -> list[page.Section]:
    blocks: list[Markup] = []
    for label, folder in folders:
        drawn = list(_pictures(folder))
        if drawn:
            blocks += [
                page.heading(f"Features of {label}"),
                page.pictures(drawn, "full"),
            ]
    identifier = f"{prefix}-worst"
    return (
        [page.Section(identifier, "Worst pairs", page.join(blocks))] if blocks else []
    )


def _pictures(folder: Path) -> Iterator[page.Picture]:
    """The pictures of the record that exist; the record has title and state of each."""
    for name, text in read_json(folder / WORST_RECORD).items():
        title = str(text).rpartition(", ")[0]
        data = thumbnail(folder / Path(name).name, PICTURE_SIDE)
        if data is not None:
            yield page.Picture(jpeg=data, caption=title)
