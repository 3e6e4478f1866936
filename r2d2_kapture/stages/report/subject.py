"""The subject of a report: a map, the files of its images, and localized queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import kapture
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.map_statistics import MapStatistics, map_statistics
from r2d2_kapture.io.colmap.sparse_map import read_colmap_model
from r2d2_kapture.io.georeference import Georeference, read_georeference
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.localize import QueryResult, read_localized
from r2d2_kapture.stages.report.query_views import QueryViews, open_query_views

PIPELINE_REPORT = "pipeline_report.json"

Poses = Mapping[str, pycolmap.Rigid3d]


@dataclass(frozen=True, kw_only=True, eq=False)
class QuerySet:
    """A query dataset and its poses.

    Attributes:
        name: of its outputs.
        localized: folder of its poses, see stages.localize.
        evaluated: folder of their errors, which may be missing.
        images: the file of each query by name, in order of names; files may be missing.
        results: of the localized queries, by name.
        cameras: of all queries, by name.
        truth: true cam_from_world by name, as far as the dataset has them.
    """

    name: str
    localized: Path
    evaluated: Path
    images: Mapping[str, Path]
    results: Mapping[str, QueryResult]
    cameras: Mapping[str, kapture.Camera]
    truth: Poses


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The subject of a report.

    Attributes:
        map: the folder it was read from.
        model: the map.
        images: the file of each mapping image by name; files may be missing.
        queries: query datasets.
        work: folder of the pipeline; None for a map alone.
        pipeline: the content of pipeline_report.json; empty for a map alone.
    """

    map: Path
    model: pycolmap.Reconstruction
    images: Mapping[str, Path]
    queries: tuple[QuerySet, ...] = ()
    work: Path | None = None
    pipeline: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def statistics(self) -> MapStatistics:
        """Statistics of the map, see map_statistics."""
        return map_statistics(self.model)

    @cached_property
    def georeference(self) -> Georeference | None:
        """Where the map lies; None if that is not known."""
        return read_georeference(self.map)

    @cached_property
    def query_views(self) -> dict[str, QueryViews]:
        """The inputs for matches of queries, by name of the dataset."""
        if self.work is None:
            return {}
        inputs = self.pipeline.get("inputs", {})
        roots = [self.work / "features", *map(Path, inputs.get("features", []))]
        datasets = [inputs.get("mapping"), *inputs.get("queries", {}).values()]
        roots += [Path(dataset["path"]) for dataset in datasets if dataset]
        views = {
            queries.name: open_query_views(
                map_path=self.map,
                features=roots,
                matches=self.work / "matches",
                pairs=self.work / "pairs" / f"{queries.name}.txt",
                localized=queries.localized,
                keypoints_type=inputs.get("keypoints_type"),
            )
            for queries in self.queries
        }
        return {name: found for name, found in views.items() if found is not None}

    @property
    def true_frame(self) -> bool:
        """Whether the map is in the frame of the true poses, because it kept given
        poses."""
        stages = self.pipeline.get("stages", [])
        return any(stage.get("method") == "triangulate" for stage in stages)


def map_subject(path: Path, images: Path | None = None) -> Subject:
    """A map alone.

    Args:
        path: see ``read_colmap_model``.
        images: folder of its images; None shows no photographs.

    Raises:
        DatasetError: there is no map, or it is broken.
    """
    model = read_colmap_model(path)
    names = sorted(image.name for image in model.images.values())
    files = {name: images / name for name in names if images and _is_inside(name)}
    return Subject(map=path, model=model, images=files)


def _is_inside(name: str) -> bool:
    """Whether a name stays inside of the folder of images."""
    return not name.startswith("/") and ".." not in name.split("/")


def pipeline_subject(work: Path) -> Subject:
    """The output folder of kapture_r2d2_pipeline.

    Raises:
        DatasetError: no such folder, or a broken file in it.
    """
    pipeline = _read_pipeline_report(work / PIPELINE_REPORT)
    inputs = pipeline.get("inputs", {})
    dataset = _dataset(inputs.get("mapping"))
    return Subject(
        map=work / "map",
        model=read_colmap_model(work / "map"),
        images={} if dataset is None else dataset.image_paths,
        queries=tuple(
            _query_set(work, name, _dataset(description))
            for name, description in inputs.get("queries", {}).items()
        ),
        work=work,
        pipeline=pipeline,
    )


def _read_pipeline_report(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if content.get("stage") == "pipeline":
        return content
    raise DatasetError(
        f"{path}: found no report of a pipeline, expected the --output of "
        "kapture_r2d2_pipeline; let the pipeline finish first, or report on a map "
        "alone with --map"
    )


def _dataset(description: Mapping[str, Any] | None) -> Dataset | None:
    """The dataset, if it is still at its path."""
    if description is None:
        return None
    root = Path(description["path"])
    return open_dataset(root) if (root / "sensors" / "sensors.txt").is_file() else None


def _query_set(work: Path, name: str, dataset: Dataset | None) -> QuerySet:
    localized = work / "localized" / name
    # images of all queries, poses of the localized ones
    found = open_dataset(localized)
    names = sorted(found.image_names)
    return QuerySet(
        name=name,
        localized=localized,
        evaluated=work / "evaluation" / name,
        images={} if dataset is None else {n: dataset.image_path(n) for n in names},
        results=_results(localized, names),
        cameras={
            image: found.data.sensors[record.sensor_id]
            for image, record in image_records(found.data).items()
        },
        truth={} if dataset is None else read_camera_poses(dataset).cam_from_world,
    )


def _results(localized: Path, names: Iterable[str]) -> dict[str, QueryResult]:
    found = {name: read_localized(localized, name) for name in names}
    return {name: result for name, result in found.items() if result is not None}
