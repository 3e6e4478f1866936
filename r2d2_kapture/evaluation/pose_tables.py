"""Evaluations of poses as text: a table to read, and a CSV of single images."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence

from r2d2_kapture.evaluation.poses import PoseEvaluation, PoseSummary, Thresholds

TOTAL = "all"
"""What the table calls the line of all images."""
MISSING_NOTE = (
    "median and mean: over localized images; median of all: with missing images "
    "infinitely far; shares: of all images"
)


def text_table(evaluations: Mapping[str, PoseEvaluation]) -> str:
    """A line for each estimate and each of its conditions, at least one estimate.

    Recall is in percent of all images, the other figures in metres and degrees.
    """
    summaries = [
        (name, condition, summary)
        for name, evaluation in evaluations.items()
        for condition, summary in [
            (TOTAL, evaluation.total),
            *evaluation.conditions.items(),
        ]
    ]
    thresholds = next(iter(evaluations.values())).thresholds
    notes = [_alignment_line(name, one) for name, one in evaluations.items()]
    table = summary_table(("estimate", "images of"), summaries, thresholds)
    return table + "".join(f"{line}\n" for line in notes if line)


def summary_table(
    titles: tuple[str, str],
    summaries: Sequence[tuple[str, str, PoseSummary]],
    thresholds: Thresholds,
) -> str:
    """A line for each summary, by the content of the first two columns.

    Recall is in percent of all images, the other figures in metres and degrees.
    """
    all_localized = all(not summary.missing for _, _, summary in summaries)
    header = [*titles, "images", "localized", "median", "mean"]
    header += [] if all_localized else ["median of all"]
    header += [f"{position:g} m {rotation:g} deg" for position, rotation in thresholds]
    rows = [[*names, *_cells(summary, all_localized)] for *names, summary in summaries]
    notes = [] if all_localized else [MISSING_NOTE]
    return "".join(f"{line}\n" for line in [*_aligned([header, *rows]), *notes])


def _cells(summary: PoseSummary, all_localized: bool) -> list[str]:
    of_all = _pair(
        summary.median_position_of_all, summary.median_rotation_of_all, otherwise="inf"
    )
    return [
        str(summary.images),
        str(summary.localized),
        _pair(summary.median_position, summary.median_rotation),
        _pair(summary.mean_position, summary.mean_rotation),
        *([] if all_localized else [of_all]),
        *(f"{100 * share:.1f} %" for share in summary.recall),
    ]


def _pair(position: float | None, rotation: float | None, otherwise: str = "-") -> str:
    if position is None or rotation is None:
        return otherwise
    return f"{position:.4f} m {rotation:.4f} deg"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; the first two to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]


def _alignment_line(name: str, evaluation: PoseEvaluation) -> str:
    alignment = evaluation.alignment
    if alignment is None:
        return ""
    share = 100 * alignment.position_median / alignment.extent
    return (
        f"{name}: aligned by a scale of {alignment.truth_from_estimate.scale:.6g} "
        f"over {alignment.images} images; what remains: median "
        f"{alignment.position_median:.4f} m ({share:.3f} % of the "
        f"{alignment.extent:.4g} m that the cameras extend over), rms "
        f"{alignment.position_rms:.4f} m, median {alignment.rotation_median:.4f} deg"
    )


def error_csv(
    evaluations: Mapping[str, PoseEvaluation],
    conditions: Mapping[str, Collection[str]],
) -> str:
    """A line for each estimate and image: the errors, empty where it is missing.

    Args:
        evaluations: by name of the estimate.
        conditions: names of images by condition; an image's are joined by ``;``.
    """
    of_image: dict[str, list[str]] = {}
    for condition, names in conditions.items():
        for name in names:
            of_image.setdefault(name, []).append(condition)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["estimate", "image", "conditions", "localized", "position_m", "rotation_deg"]
    )
    for estimate, evaluation in evaluations.items():
        for error in evaluation.errors:
            values = [error.position, error.rotation] if error.localized else ["", ""]
            groups = ";".join(of_image.get(error.name, []))
            row = [estimate, error.name, groups, int(error.localized), *values]
            writer.writerow(row)
    return file.getvalue()
