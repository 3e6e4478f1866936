"""Maps and localizes with refinement off and on, and compares both; for refine_*.py.

Features and matches are made once, and shared by all maps of the same images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap

from r2d2_kapture.cli.common import show
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.evaluation.alignment import align_poses
from r2d2_kapture.evaluation.poses import PoseError, evaluate_poses
from r2d2_kapture.io.colmap.image_folder import link_folder
from r2d2_kapture.io.colmap.sparse_map import read_colmap_model
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages import extract
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.stages.pipeline_steps import Sources, Steps

QUERY = "query"
OFF_ON = ("off", "on")
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SharedLayout(Layout):
    """A pipeline's folder with what does not depend on refinement in others.

    Attributes:
        shared: folder of the features and matches of all images.
    """

    shared: Path

    @property
    def features(self) -> Path:
        """Of all images."""
        return self.shared / "features"

    @property
    def matches(self) -> Path:
        """Of all pairs."""
        return self.shared / "matches"

    @property
    def verified(self) -> Path:
        """The same with refinement off and on."""
        return self.output.parent / "verified"

    @property
    def database(self) -> Path:
        """The same with refinement off and on."""
        return self.output.parent / "database.db"


@dataclass(frozen=True, kw_only=True, eq=False)
class Localized:
    """A map and the queries localized in it.

    Attributes:
        model: the map.
        queries: cam_from_world by name.
    """

    model: pycolmap.Reconstruction
    queries: Mapping[str, pycolmap.Rigid3d]


def configuration(refine: str) -> PipelineConfig:
    """Settings of the pipeline with its defaults, and refinement ``off`` or ``on``."""
    exhaustive = PairsConfig(method="exhaustive")
    config = PipelineConfig(
        mapping_pairs=exhaustive,
        query_pairs=exhaustive,
        localize=LocalizeConfig(rigs="off"),
    )
    return config if refine == "on" else config.without_refinement


def extract_all(extractor: Extractor, datasets: Sequence[Path], shared: Path) -> None:
    """Features of all images of some datasets."""
    for dataset in datasets:
        extract.run(
            extractor, kapture_root=dataset, output=shared / "features", masks=None
        )


def localize(
    mapping: Path, query: Path, output: Path, *, shared: Path, label: str, refine: str
) -> Localized:
    """Map a dataset and localize another in it; the features exist.

    Args:
        mapping: dataset with or without poses.
        query: dataset.
        output: folder of the map and the poses.
        shared: folder of the features, and of the matches.
        label: keypoints type of the features.
        refine: ``off`` or ``on``.
    """
    layout = SharedLayout(output=output, shared=shared)
    steps = Steps(
        config=configuration(refine),
        mapping=open_dataset(mapping),
        sources=Sources(
            roots=(layout.features,),
            keypoints_type=label,
            descriptors_type=label,
            global_features_type=None,
        ),
        layout=layout,
        options=RunOptions(replace=True),
    )
    for report in [*steps.build_map(), *steps.localize(QUERY, open_dataset(query))]:
        show(f"  {refine} {report.stage}: {report.seconds:.1f} s {report.summary}")
    estimated = read_camera_poses(open_dataset(layout.localized(QUERY)))
    model = read_colmap_model(layout.map)
    return Localized(model=model, queries=estimated.cam_from_world)


def map_figures(found: Localized) -> Figures:
    """Size and errors of a map."""
    return {
        "points": found.model.num_points3D(),
        "observations": found.model.compute_num_observations(),
        "reprojection error, px": found.model.compute_mean_reprojection_error(),
    }


def true_poses(dataset: Path) -> dict[str, pycolmap.Rigid3d]:
    """cam_from_world of the images of a dataset."""
    return read_camera_poses(open_dataset(dataset)).cam_from_world


def aligned(found: Localized, truth: Mapping[str, pycolmap.Rigid3d]) -> Localized:
    """The map and the queries, moved by the similarity of the mapping cameras."""
    estimated = {i.name: i.cam_from_world() for i in found.model.images.values()}
    moved = align_poses(truth, estimated).truth_from_estimate
    found.model.transform(moved)
    queries = {n: moved.transform_camera_world(p) for n, p in found.queries.items()}
    return dataclasses.replace(found, queries=queries)


def pose_errors(
    truth: Mapping[str, pycolmap.Rigid3d], found: Mapping[str, pycolmap.Rigid3d]
) -> tuple[PoseError, ...]:
    """Of every image with a true pose, by name; infinite where it is not localized."""
    return evaluate_poses(truth, found).errors


def pose_figures(errors: Sequence[PoseError]) -> Figures:
    """Medians over all queries."""
    return {
        "median position, mm": 1000 * float(np.median([e.position for e in errors])),
        "median rotation, deg": float(np.median([e.rotation for e in errors])),
    }


def positions(errors: Sequence[PoseError]) -> Figures:
    """Position error of each query, mm."""
    return {error.name: 1000 * error.position for error in errors}


def table(off: Figures, on: Figures) -> Iterator[str]:
    """A line a figure: off, on and their ratio."""
    yield f"{'':40s} {'off':>10s} {'on':>10s} {'on / off':>9s}"
    for name, value in off.items():
        ratio = on[name] / value if value else float("nan")
        yield f"{name[-40:]:40s} {value:10.4g} {on[name]:10.4g} {ratio:9.3f}"


def bar(name: str, value: float, *, at_most: float) -> str:
    """Whether a bar of the issue holds, with the figure."""
    verdict = "holds" if value <= at_most else "DOES NOT HOLD"
    return f"{verdict}: {name} {value:.3f}, at most {at_most:.3f}"


def write_part(
    source: Path, target: Path, names: Collection[str], *, poses: bool = True
) -> Path:
    """A kapture dataset of some images of another; pixels stay where they are."""
    dataset = open_dataset(source)
    records, times = kapture.RecordsCamera(), set()
    for timestamp, sensor_id, name in image_records(dataset.data).values():
        if name in names:
            records[timestamp, sensor_id] = name
            times.add(timestamp)
    trajectories = kapture.Trajectories()
    for timestamp, device, pose in kapture.flatten(dataset.data.trajectories):
        if timestamp in times:
            trajectories[timestamp, device] = pose
    part = kapture.Kapture(
        sensors=dataset.data.sensors,
        rigs=dataset.data.rigs,
        records_camera=records,
        trajectories=trajectories if poses else None,
    )
    kcsv.kapture_to_dir(str(target), part)
    images = Path("sensors", "records_data")
    link_folder(target / images, source / images)
    return target
