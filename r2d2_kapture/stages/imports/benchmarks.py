"""Scenes of known benchmarks as kapture datasets, and the results of all of them."""

from __future__ import annotations

import csv
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.evaluation.pose_tables import summary_table
from r2d2_kapture.evaluation.poses import PoseError, PoseSummary, Thresholds, summarize
from r2d2_kapture.io.benchmarks.splits import Scene, write_split
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.stages.evaluate import CSV_NAME
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.types import Failure, Report

REPORT_NAME = "benchmark_report.json"
TABLE_NAME = "results.txt"
ALL = "all scenes"
KAPTURE_SPLITS = ("validation", "test")
"""Query datasets of benchmarks that are published as kapture."""
ReadScene = Callable[[Path], Scene]


@dataclass(frozen=True, kw_only=True)
class SceneDatasets:
    """The kapture datasets of a scene.

    Attributes:
        mapping: of the map.
        queries: to localize, by name.
        reports: of what was written.
    """

    mapping: Path
    queries: Mapping[str, Path]
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Localized:
    """A scene whose pipeline has run.

    Attributes:
        queries: names of its query datasets.
        report: of the pipeline.
    """

    queries: tuple[str, ...]
    report: Report


def import_scene(
    read: ReadScene | None,
    folder: Path,
    output: Path,
    *,
    depth: bool,
    options: RunOptions = RunOptions(),
) -> SceneDatasets:
    """Write a scene as kapture datasets of links, or find those that it has.

    Args:
        read: reads the authors' files; None for a benchmark in kapture's format.
        folder: of the scene.
        output: folder of the datasets, one a split.
        depth: write depth maps of the map's images.
        options: whether datasets of another folder are replaced.

    Raises:
        DatasetError: a file is missing or malformed.
        OutputError: there is something else, or the file system refused.
    """
    if read is None:
        found = {name: folder / name for name in KAPTURE_SPLITS}
        queries = {name: path for name, path in found.items() if path.is_dir()}
        return SceneDatasets(mapping=folder / "mapping", queries=queries)
    scene = read(folder)
    splits = {"mapping": scene.mapping, **scene.queries}
    reports = []
    for name, split in splits.items():
        started = time.monotonic()
        written = write_split(
            split,
            output / name,
            folder,
            depth=depth and name == "mapping",
            replace=options.replaces,
        )
        reports.append(
            Report(
                stage=f"import {name}",
                unit="image",
                done=written.new,
                skipped=written.images - written.new,
                failed=(),
                warnings=written.warnings,
                seconds=time.monotonic() - started,
                outputs=(output / name,),
            )
        )
    return SceneDatasets(
        mapping=output / "mapping",
        queries={name: output / name for name in scene.queries},
        reports=tuple(reports),
    )


def report_scenes(
    output: Path,
    scenes: Mapping[str, Localized],
    thresholds: Thresholds,
    *,
    submitted: bool,
    failed: Sequence[Failure] = (),
    seconds: float = 0.0,
) -> Report:
    """Join the errors of all scenes with true poses, and their poses.

    Writes ``results.txt``, ``benchmark_report.json``, and ``submission.txt``.

    Args:
        output: folder of the scenes' pipelines, by name.
        scenes: what was localized, by name.
        thresholds: pairs of metres and degrees.
        submitted: whether all poses are to be in one file.
        failed: scenes that could not be mapped.
        seconds: of the whole run.

    Raises:
        OutputError: the file system refused.
    """
    outputs: list[Path] = []
    layouts = {name: Layout(output=output / name) for name in scenes}
    if submitted:
        outputs.append(Layout(output=output).submission)
        texts = [layout.submission.read_text("utf-8") for layout in layouts.values()]
        write_text_atomic(outputs[0], "".join(texts))
    errors = {
        (name, query): _read_errors(layout.evaluated(query) / CSV_NAME)
        for name, layout in layouts.items()
        for query in scenes[name].queries
        if (layout.evaluated(query) / CSV_NAME).is_file()
    }
    summaries = {key: summarize(found, thresholds) for key, found in errors.items()}
    if summaries:
        shown = [(*key, found) for key, found in summaries.items()]
        if len(summaries) > 1:
            joined = [error for found in errors.values() for error in found]
            shown.append((ALL, "", summarize(joined, thresholds)))
        table = summary_table(("scene", "queries"), shown, thresholds)
        write_text_atomic(output / TABLE_NAME, table)
        outputs.append(output / TABLE_NAME)
    work = [scene.report for scene in scenes.values()]
    report = Report(
        stage="benchmark",
        unit="scene",
        done=sum(bool(one.done) for one in work),
        skipped=sum(not one.done for one in work),
        failed=(
            *failed,
            *(
                dataclasses.replace(item, name=f"{name}: {item.name}")
                for name, scene in scenes.items()
                for item in scene.report.failed
            ),
        ),
        seconds=seconds,
        outputs=tuple(outputs),
    )
    more = {
        "results": [
            {"scene": scene, "queries": query, **found.to_json(thresholds)}
            for (scene, query), found in summaries.items()
        ],
        "mean_of_medians": _mean_of_medians(list(summaries.values())),
    }
    return write_report(output / REPORT_NAME, report, more)


def _mean_of_medians(summaries: Sequence[PoseSummary]) -> dict[str, Any]:
    """As tables of several scenes are published; empty where a scene has no pose."""
    position = [s.median_position for s in summaries if s.median_position is not None]
    rotation = [s.median_rotation for s in summaries if s.median_rotation is not None]
    if not summaries or len(position) < len(summaries):
        return {}
    return {"position": float(np.mean(position)), "rotation": float(np.mean(rotation))}


def _read_errors(path: Path) -> list[PoseError]:
    """The errors of an evaluation as it wrote them."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            PoseError(
                name=row["image"],
                position=float(row["position_m"] or math.inf),
                rotation=float(row["rotation_deg"] or math.inf),
            )
            for row in csv.DictReader(file)
        ]
