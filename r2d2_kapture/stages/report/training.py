"""The page of a training run: its losses, validation and inputs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.charts import lines
from r2d2_kapture.types import duration

Array = npt.NDArray[np.float64]
Columns = Mapping[str, tuple[list[float], list[float]]]
"""Steps and values of each column of a log, without rows that have no number."""

STEP = "step"
LOGS = {"log": "Training curves", "validation": "Validation curves"}
"""File name without suffix, and title."""
FIRST = "loss"
TITLES = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "seconds_per_step": "time (s) a step",
    "data_wait_seconds": "waiting for data (s) a step",
    "skipped_steps": "skipped steps",
}
HEIGHT = 260
MOST_POINTS = 1000
"""Greatest number of points of a curve."""


def training_sections(runs: Sequence[Path]) -> list[page.Section]:
    """The sections of runs of kapture_r2d2_train; several runs share a chart.

    Args:
        runs: their --output folders, at least one.

    Raises:
        DatasetError: a folder has no log of a run, or a broken one.
    """
    labels = run_labels(runs)
    sections = [
        page.Section("runs", "Training runs", page.join(map(_summary, labels, runs)))
    ]
    for stem, title in LOGS.items():
        logs = {
            label: read_log(run / f"{stem}.csv", required=stem == "log")
            for label, run in zip(labels, runs)
        }
        columns = dict.fromkeys(name for log in logs.values() for name in log)
        if columns:
            html = page.side_by_side(
                _chart(name, logs) for name in _loss_first(columns)
            )
            sections.append(page.Section(stem, title, html))
    return sections


def run_labels(runs: Sequence[Path]) -> list[str]:
    """Distinct names of folders, with parent folders if necessary."""
    names = [run.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(run) for run in runs]


def read_log(path: Path, *, required: bool = True) -> Columns:
    """Read what training logged.

    Args:
        path: of log.csv or validation.csv.
        required: whether a missing file is an error instead of an empty log.

    Raises:
        DatasetError: the file is missing or not a log.
    """
    if not path.is_file():
        if not required:
            return {}
        raise DatasetError(
            f"{path}: found no such file, expected the log of a run; give the --output "
            "of kapture_r2d2_train"
        )
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        reader = csv.DictReader(file)
        if STEP not in (reader.fieldnames or ()):
            raise DatasetError(
                f"{path}: found columns {reader.fieldnames}, expected '{STEP}' and "
                "values; give the --output of kapture_r2d2_train"
            )
        columns: dict[str, tuple[list[float], list[float]]] = {}
        for row in reader:
            for name, text in row.items():
                step, value = _number(row[STEP]), _number(text)
                if name != STEP and name and math.isfinite(step + value):
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(value)
    return columns


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _loss_first(columns: Mapping[str, None]) -> list[str]:
    return sorted(columns, key=lambda name: name != FIRST)


def _chart(name: str, logs: Mapping[str, Columns]) -> Markup:
    title = TITLES.get(name, name.replace("_", " "))
    return page.chart(
        lines(
            {label: thinned(*log[name]) for label, log in logs.items() if name in log},
            x_title="step",
            y_title=title,
        ),
        f"{title} by step",
        HEIGHT,
    )


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[Array, Array]:
    """A curve of at most MOST_POINTS, the means of consecutive rows."""
    share = -(-len(steps) // MOST_POINTS)
    starts = np.arange(0, len(steps), share)
    counts = np.diff([*starts, len(steps)])
    mean_steps, mean_values = (
        np.add.reduceat(np.asarray(v), starts) / counts for v in (steps, values)
    )
    return mean_steps, mean_values


def _summary(label: str, run: Path) -> Markup:
    report = read_json(run / "train_report.json")  # empty of an unfinished run
    figures = {
        title: text
        for title, text in (
            ("steps", _steps(report)),
            ("time of the last session", _time(report)),
            ("best step", _text(report.get("best_step"))),
            ("best score", _text(report.get("best_score"))),
            ("device", _text(report.get("device"))),
            ("precision", _text(report.get("precision"))),
        )
        if text
    }
    blocks = [page.heading(label)]
    if figures:
        blocks.append(page.numbers(figures))
    if report.get("warnings"):
        blocks.append(page.bullets(map(str, report["warnings"]), "warning"))
    return page.join(blocks)


def _steps(report: Mapping[str, Any]) -> str:
    if "steps" not in report:
        return ""
    return f"{report['steps']:,} of {report.get('total_steps', report['steps']):,}"


def _time(report: Mapping[str, Any]) -> str:
    return duration(report["seconds"]) if "seconds" in report else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
