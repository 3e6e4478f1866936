"""Evaluation of estimated camera poses against the ground truth of a kapture
dataset."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, ReconstructionError
from r2d2_kapture.evaluation.pose_tables import error_csv, text_table
from r2d2_kapture.evaluation.poses import (
    PoseEvaluation,
    conditions_by_folder,
    evaluate_poses,
)
from r2d2_kapture.io.colmap.sparse_map import read_sparse_map
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.pose_files import read_submission
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.lists import names_in, read_list_lines
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.atomic import (
    read_json,
    remove_file,
    write_json_atomic,
    write_text_atomic,
)
from r2d2_kapture.io.outputs.ledger import Contents, write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import differences
from r2d2_kapture.pictures.poses import PlanMap, draw_cumulative_errors, draw_plan
from r2d2_kapture.types import Failure, Report, some_names

RESULTS_NAME = "results.json"
TABLE_NAME = "results.txt"
CSV_NAME = "per_image.csv"
CURVES_NAME = "errors.png"
PLAN_NAME = "plan.png"
REPORT_NAME = "evaluate_report.json"
OUTPUT_NAMES = (RESULTS_NAME, TABLE_NAME, CSV_NAME, CURVES_NAME, PLAN_NAME)
CONTENTS = Contents(what="results", files=(*OUTPUT_NAMES, REPORT_NAME))

Poses = Mapping[str, pycolmap.Rigid3d]
Conditions = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The evaluation of one estimate.

    Attributes:
        path: of the dataset or text file.
        unknown: names of images with a pose that are not in the ground truth.
        evaluation: its errors.
    """

    path: Path
    unknown: tuple[str, ...]
    evaluation: PoseEvaluation

    def to_json(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {
            "path": str(self.path),
            "unknown_images": len(self.unknown),
            **self.evaluation.to_json(),
        }

    def figures(self) -> dict[str, Any]:
        """The figures of all images, with recall by thresholds as text.

        Medians of all images are left out where all are localized: they are the same.
        """
        total, thresholds = self.evaluation.total, self.evaluation.thresholds
        recall = {
            f"{position:g} m {rotation:g} deg": share
            for (position, rotation), share in zip(thresholds, total.recall)
        }
        figures = total.to_json(thresholds) | {"recall": recall}
        if not total.missing:
            figures = {k: v for k, v in figures.items() if not k.endswith("_of_all")}
        return figures | {"unknown_images": len(self.unknown)}


def run(
    config: EvaluateConfig,
    *,
    ground_truth: DatasetOrPath,
    estimated: Mapping[str, Path],
    output: Path,
    image_names: Sequence[str] | None = None,
    map_path: Path | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Compare estimated camera poses with the true poses of a kapture dataset.

    Reports position and rotation errors, median, mean and the share of images within
    thresholds, as a table, JSON, CSV and pictures. Missing images are part of the
    result, not failures: they count in recall, and the report states their number. An
    estimate fails if it cannot be aligned.

    Args:
        config: settings.
        ground_truth: folder of a kapture dataset with the true poses; images without
            one are counted and left out.
        estimated: by name: kapture datasets, or text files, see
            io/kapture/pose_files.py. Names of a dataset may begin with a folder that
            those of the true poses lack, as a pipeline adds to photographs.
        output: folder of results.json, results.txt, per_image.csv, errors.png, plan.png
            and evaluate_report.json; existing equal results are kept.
        image_names: images to evaluate; None takes all.
        map_path: map that the images are localized in, drawn in plan.png; with --align
            it is aligned like the first estimate.
        options: how to run; ``force`` or ``replace`` replaces results of other poses.

    Returns:
        A report whose ``details`` hold, besides counts, the figures of each estimate
        in ``estimates``; ``done`` counts estimates.

    Raises:
        DatasetError: there is no true pose, an estimate is of other images, a list has
            an unknown name, or a file is malformed.
        ConfigError: no estimate is given.
        OutputError: ``output`` holds other results, or cannot be written.
    """
    started = time.monotonic()
    require(bool(estimated), "estimated: found none, expected one or more")
    dataset = open_dataset(ground_truth)
    true, without_pose = _true_poses(dataset, image_names)
    conditions = _conditions(config, dataset, true)
    warnings = [*_without_truth(without_pose, dataset), *_listed_only(conditions, true)]
    evaluations: dict[str, Evaluated] = {}
    failed: list[Failure] = []
    for name, path in estimated.items():
        poses, unknown, folder = _read_estimate(path, dataset, true, config)
        try:
            evaluation = evaluate_poses(
                true,
                poses,
                thresholds=config.thresholds,
                conditions=conditions,
                align=config.align,
            )
        except ReconstructionError as error:
            failed.append(Failure(name=name, reason=str(error)))
            if options.strict:
                break
            continue
        evaluations[name] = Evaluated(path=path, unknown=unknown, evaluation=evaluation)
        warnings += [*_without_folder(name, folder), *_unknown_images(name, unknown)]
    results = {
        "ground_truth": str(dataset.root.resolve()),
        "images": len(true),
        "without_true_pose": len(without_pose),
        "settings": _settings(config),
        "estimates": {name: one.to_json() for name, one in evaluations.items()},
    }
    with exclusive(output):
        fresh = bool(evaluations) and _must_write(output, results, options)
        if fresh:
            mapped = None if map_path is None else _plan_map(map_path, evaluations)
            _write(output, results, evaluations, conditions, true, mapped)
        report = Report(
            stage="evaluate",
            unit="estimate",
            summary=_summary(evaluations),
            done=len(evaluations) if fresh else 0,
            skipped=0 if fresh else len(evaluations),
            failed=tuple(failed),
            seconds=time.monotonic() - started,
            outputs=(
                tuple(output / name for name in OUTPUT_NAMES) if evaluations else ()
            ),
            details={
                "images": len(true),
                "without_true_pose": len(without_pose),
                "estimates": {name: one.figures() for name, one in evaluations.items()},
            },
            warnings=tuple(warnings),
        )
        return write_report(output / REPORT_NAME, report)


def _summary(evaluated: Mapping[str, Evaluated]) -> str:
    """The median errors of a single estimate as text."""
    if len(evaluated) != 1:
        return ""
    figures = next(iter(evaluated.values())).figures()
    position, rotation = figures["median_position"], figures["median_rotation"]
    if position is None or rotation is None:
        return "no image localized"
    return f"median errors {position:.3g} m and {rotation:.3g} degrees"


def _true_poses(
    dataset: Dataset, image_names: Sequence[str] | None
) -> tuple[Poses, tuple[str, ...]]:
    """The true poses to evaluate against, and the images that have none."""
    poses = read_camera_poses(dataset)
    names = set(dataset.image_names if image_names is None else image_names)
    unknown = names - set(dataset.image_names)
    if unknown:
        raise DatasetError(
            f"{dataset.root}: found no image '{min(unknown)}', expected all images to "
            "evaluate; correct the list of images"
        )
    true = {name: p for name, p in poses.cam_from_world.items() if name in names}
    if not true:
        raise DatasetError(
            f"{dataset.root}: found no true pose of {len(names)} images, expected some "
            "in sensors/trajectories.txt; evaluate against a dataset with poses"
        )
    return true, tuple(sorted(names - true.keys()))


def _without_truth(names: Sequence[str], dataset: Dataset) -> Iterator[str]:
    if names:
        yield (
            f"{len(names)} images of {dataset.root} have no true pose and are not "
            f"evaluated: {some_names(names)}"
        )


def _listed_only(conditions: Conditions, true: Poses) -> Iterator[str]:
    """The warnings on lists with images that are not evaluated."""
    for condition, names in conditions.items():
        lacking = sorted(set(names) - true.keys())
        if lacking:
            yield (
                f"list '{condition}': {len(lacking)} of its {len(set(names))} images "
                f"have no true pose and are not evaluated: {some_names(lacking)}"
            )


def _unknown_images(estimate: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            f"{len(names)} poses of '{estimate}' are of images that are not in the "
            f"ground truth, and are not evaluated: {some_names(names)}"
        )


def _conditions(config: EvaluateConfig, dataset: Dataset, true: Poses) -> Conditions:
    """Names of images by condition; those of lists may lack a true pose."""
    if config.by == "none":
        return {}
    if config.by == "folder":
        return conditions_by_folder(true.keys())
    known = set(dataset.image_names)
    return {path.stem: _image_list(path, known) for path in config.lists}


def _image_list(path: Path, known: set[str]) -> list[str]:
    """Read names from a list, one per line; a camera may follow, as in Aachen's
    lists."""
    names = []
    for number, line in enumerate(read_list_lines(path, "a list of images"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name = next(filter(known.__contains__, names_in(line)), None)
        if name is None:
            raise DatasetError(
                f"{path}, line {number}: '{shown(line.strip())[:80]}' is not an image "
                "of the ground truth, expected its name; correct the list"
            )
        names.append(name)
    if not names:
        raise DatasetError(f"{path}: found no image, expected one name per line")
    return names


def _read_estimate(
    path: Path, dataset: Dataset, true: Poses, config: EvaluateConfig
) -> tuple[Poses, tuple[str, ...], str]:
    """Read poses, the names of images that are not in the ground truth, and the folder
    that was left out of names, see _query_folder.

    Raises:
        DatasetError: none of the images has a true pose.
    """
    folder = ""
    if path.is_file():
        submitted = read_submission(path, dataset, config.text_format)
        poses = submitted.cam_from_world
        unknown = set(submitted.unknown)
        images = poses.keys() | unknown
    else:
        found = read_camera_poses(open_dataset(path))
        images = found.cam_from_world.keys() | set(found.without_pose)
        folder = _query_folder(images, true)
        images = {name.removeprefix(folder) for name in images}
        poses = {n.removeprefix(folder): p for n, p in found.cam_from_world.items()}
        unknown = poses.keys() - set(dataset.image_names)
    if images and not images & true.keys():
        raise DatasetError(
            f"{path}: found none of the images with a true pose in {dataset.root}, "
            f"such as '{min(true)}', but images such as '{min(images)}'; give an "
            "estimate of the same images"
        )
    return poses, tuple(sorted(unknown)), folder


def _query_folder(names: Collection[str], true: Poses) -> str:
    """The folder of all names without which they are in the ground truth, with its
    slash: a pipeline begins the names of photographs to localize so; else empty."""
    first, slash, _ = min(names, default="").partition("/")
    folder = first + slash
    common = bool(slash) and all(name.startswith(folder) for name in names)
    if not common or not true.keys().isdisjoint(names):
        return ""
    found = any(name.removeprefix(folder) in true for name in names)
    return folder if found else ""


def _without_folder(estimate: str, folder: str) -> Iterator[str]:
    if folder:
        yield (
            f"images of '{estimate}' are compared without the first folder of their "
            f"names, '{folder}', which those of the ground truth lack"
        )


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    settings = dataclasses.asdict(config)
    return settings | {
        "thresholds": [list(pair) for pair in config.thresholds],
        "lists": [str(path) for path in config.lists],
    }


def _must_write(output: Path, results: dict[str, Any], options: RunOptions) -> bool:
    """Whether results are missing; refuse to replace those of other inputs."""
    path = output / RESULTS_NAME
    if options.force or not path.exists():
        return True
    found = read_json(path)
    if found == results:
        return not all((output / name).exists() for name in OUTPUT_NAMES)
    if not options.replaces:
        CONTENTS.refuse(
            path, differences(found.get("settings", {}), results["settings"])
        )
        raise CONTENTS.refusal(path, "results of other poses")
    return True


def _write(
    output: Path,
    results: dict[str, Any],
    evaluated: Mapping[str, Evaluated],
    conditions: Conditions,
    true: Poses,
    mapped: PlanMap | None,
) -> None:
    """Write all outputs, results.json last: where it is, they are complete."""
    evaluations = {name: one.evaluation for name, one in evaluated.items()}
    remove_file(output / RESULTS_NAME)
    write_text_atomic(output / TABLE_NAME, text_table(evaluations))
    write_text_atomic(output / CSV_NAME, error_csv(evaluations, conditions))
    errors = {
        name: (
            np.array([error.position for error in evaluation.errors]),
            np.array([error.rotation for error in evaluation.errors]),
        )
        for name, evaluation in evaluations.items()
    }
    thresholds = next(iter(evaluations.values())).thresholds
    draw_cumulative_errors(errors, output / CURVES_NAME, thresholds=thresholds)
    estimates = {name: one.estimated for name, one in evaluations.items()}
    draw_plan(true, estimates, output / PLAN_NAME, mapped=mapped)
    write_json_atomic(output / RESULTS_NAME, results)


def _plan_map(path: Path, evaluated: Mapping[str, Evaluated]) -> PlanMap:
    """The map in the world of the true poses."""
    found = read_sparse_map(path)
    poses = [pycolmap.Rigid3d(i.cam_from_world) for i in found.images.values()]
    points = found.points
    alignment = next(iter(evaluated.values())).evaluation.alignment
    if alignment is not None:
        moved = alignment.truth_from_estimate
        points = points @ moved.matrix()[:, :3].T + moved.translation
        poses = [moved.transform_camera_world(pose) for pose in poses]
    return PlanMap(
        points=points, cam_from_world=np.array([pose.matrix() for pose in poses])
    )
