"""The outcome of each query, compared with ground truth if known."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.evaluate import DEFAULT_THRESHOLDS
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.evaluation.poses import PoseEvaluation, Thresholds, evaluate_poses
from r2d2_kapture.stages.evaluate import CSV_NAME
from r2d2_kapture.stages.localize import QueryResult, read_reason
from r2d2_kapture.stages.report.subject import QuerySet

FINE_THRESHOLDS = ((0.01, 0.1), (0.05, 0.5), (0.1, 1.0))
"""Thresholds in metres and degrees, in addition to those of the evaluation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """The outcome of a query.

    Attributes:
        name: of the image.
        result: its pose; None if there is none.
        reason: why there is no pose.
        position, rotation: its errors in metres and degrees, infinite without a pose;
            None if the truth is unknown.
    """

    name: str
    result: QueryResult | None
    reason: str | None = None
    position: float | None = None
    rotation: float | None = None

    @property
    def verdict(self) -> str:
        """``good``, ``doubtful`` or ``failed``."""
        return "failed" if self.result is None else self.result.verdict or "good"

    @property
    def rank(self) -> tuple[float, ...]:
        """Sort key, smallest for the worst: no pose, large error, doubtful, few
        inliers."""
        inliers = 0 if self.result is None else self.result.inliers
        order = ("failed", "doubtful", "good").index(self.verdict)
        if self.position is not None and self.result is not None:
            return (1, -self.position, inliers)
        return (min(order, 1), order, inliers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Localized:
    """A query dataset with outcomes.

    Attributes:
        name: of the dataset.
        outcomes: of all its images, in order of names.
        evaluation: against ground truth; None if unknown.
        note: on the ground truth; may be empty.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    evaluation: PoseEvaluation | None
    note: str = ""

    @property
    def worst_first(self) -> list[Outcome]:
        """The outcomes, worst first."""
        return sorted(self.outcomes, key=lambda one: (one.rank, one.name))


def judge(queries: QuerySet, *, thresholds: Thresholds, align: bool) -> Localized:
    """Compare the poses of a query dataset with ground truth, if known.

    Args:
        queries: with their poses.
        thresholds: of recall.
        align: align the poses with ground truth first, since the map has its own frame.
    """
    names = sorted(queries.cameras)
    outcomes = [
        Outcome(
            name=name,
            result=queries.results.get(name),
            reason=read_reason(queries.localized, name),
        )
        for name in names
    ]
    true = {name: queries.truth[name] for name in names if name in queries.truth}
    evaluation, note = None, ""
    if true:
        poses = {name: result.pose for name, result in queries.results.items()}
        try:
            evaluation = evaluate_poses(
                true,
                poses,
                thresholds=thresholds,
                conditions=read_conditions(queries.evaluated),
                align=align,
            )
        except ReconstructionError as error:
            note = f"The poses are not compared with ground truth: {error}"
    if evaluation is not None:
        errors = {error.name: error for error in evaluation.errors}
        outcomes = [
            (
                one
                if one.name not in errors
                else dataclasses.replace(
                    one,
                    position=errors[one.name].position,
                    rotation=errors[one.name].rotation,
                )
            )
            for one in outcomes
        ]
        if align:
            note = (
                "The map has its own frame and scale: the poses were aligned with the "
                "true ones by a similarity before the comparison."
            )
    return Localized(
        name=queries.name,
        outcomes=tuple(outcomes),
        evaluation=evaluation,
        note=note,
    )


def read_conditions(evaluated: Path) -> dict[str, list[str]]:
    """Images of each condition of an evaluation; empty without conditions.

    Args:
        evaluated: folder of the evaluation.
    """
    conditions: dict[str, list[str]] = {}
    try:
        with (evaluated / CSV_NAME).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for condition in filter(None, row["conditions"].split(";")):
                    conditions.setdefault(condition, []).append(row["image"])
    except (OSError, ValueError, KeyError, AttributeError, csv.Error):
        return {}
    return dict(sorted(conditions.items()))


def all_thresholds(of_evaluation: Thresholds = DEFAULT_THRESHOLDS) -> Thresholds:
    """The thresholds of an evaluation and finer ones, ascending."""
    return sorted({*FINE_THRESHOLDS, *of_evaluation})
