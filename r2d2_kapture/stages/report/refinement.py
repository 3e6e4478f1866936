"""The section of refinement: keypoints that moved, how far, and why others did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.stages.refine import read_steps
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.charts import histogram

Json = Mapping[str, Any]

REASONS = {
    "still": "registration leads to where it is",
    "border": "the patch leaves the image",
    "texture": "no texture that determines the place",
    "far": "the patch matches best farther away than the largest step",
    "similarity": "not similar enough to the reference",
    "worse": "less similar than where it was",
    "return": "registration back leads to another place of the reference",
    "unreadable": "the photograph, or that of the reference, cannot be read",
}
"""Why keypoints stay, by their names in reports."""


def refinement_sections(
    stages: Sequence[Json], work: Path | None
) -> list[page.Section]:
    """The section, if keypoints were refined.

    Args:
        stages: reports of the stages of a pipeline, or of kapture_r2d2_colmap.
        work: its folder; None if that is not known.
    """
    blocks: list[Markup] = []
    times = 0
    for stage in stages:
        of_map = stage if stage["stage"] == "refine" else stage.get("refinement")
        if of_map and of_map.get("observations"):
            blocks += [page.heading("The second time, with the map")] * (times == 1)
            blocks += _of_map(of_map, work and _folders(work)[times])
            times += 1
    blocks += _of_queries([one for one in stages if one["stage"] == "localize"])
    if not blocks:
        return []
    return [page.Section("refinement", "Refinement", page.join(blocks))]


def _folders(work: Path) -> tuple[Path, Path]:
    """Where the keypoints of the first and the second time are."""
    layout = Layout(output=work)
    return layout.refined, layout.refined_again


def _of_map(refined: Json, folder: Path | None) -> Iterator[Markup]:
    """What refinement did to the keypoints of the map."""
    total, moved = refined["observations"], refined["moved"]
    figures = {
        "keypoints in tracks": f"{total:,}",
        "tracks": f"{refined['tracks']:,}",
        "keypoints moved": f"{moved:,} ({100 * moved / total:.0f} %)",
    }
    if moved:
        figures |= {
            "median step": f"{refined['step_median']:.2f} px",
            "95 % of the steps below": f"{refined['step_95']:.2f} px",
            "median similarity before and after": f"{refined['similarity_before']:.2f}"
            f", {refined['similarity_after']:.2f}",
        }
    yield page.numbers(figures)
    name = refined["keypoints_type"]
    steps = np.zeros(0) if folder is None else _steps(folder, name)
    if len(steps):
        figure = histogram(steps, x_title="step (px)", y_title="keypoints")
        yield page.chart(figure, "Histogram of the steps of keypoints", 260)
    kept = refined["kept"]
    if kept:
        yield page.heading("Keypoints that stay where they were extracted")
        rows = [
            (REASONS.get(name, name), count, f"{100 * count / total:.1f}")
            for name, count in sorted(kept.items(), key=lambda item: -item[1])
        ]
        yield page.table(("reason", "keypoints", "% of those in tracks"), rows)
    yield page.paragraph(
        f"The remaining {refined['tracks']:,} keypoints are the references of their "
        "tracks, which the others are registered against.",
        "note",
    )


def _steps(folder: Path, keypoints_type: str) -> npt.NDArray[np.floating]:
    return read_steps(folder / "reconstruction" / "keypoints" / keypoints_type)


def _of_queries(stages: Sequence[Json]) -> Iterator[Markup]:
    """What registration against the patches of the map did to queries."""
    rows = [
        (
            Path(stage["outputs"][0]).name,
            stage["localized"] + stage["doubtful"],
            stage["refined"],
            stage["keypoints_moved"],
            stage["keypoints_registered"],
            stage["median_step"],
            stage["median_error_before"],
            stage["median_error_after"],
        )
        for stage in stages
        if "refined" in stage
    ]
    if rows:
        yield page.heading("Queries")
        titles = (
            *("queries of", "localized", "refined", "keypoints moved", "registered"),
            *("median step (px)", "median error before (px)", "after (px)"),
        )
        yield page.table(titles, rows, digits=2)
