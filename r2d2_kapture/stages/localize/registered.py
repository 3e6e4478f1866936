"""A map with localized queries registered in it, as one COLMAP model."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.colmap.cameras import image_cameras
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.sparse_map import (
    SparseMap,
    map_files,
    read_colmap_model,
    read_sparse_map,
)
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.match_store import MatchTable, open_matches
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin, place_keypoints
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    Contents,
    is_made_with,
    rebuilding,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.stages.localize.correspondences import gather_correspondences
from r2d2_kapture.stages.localize.matches import read_query_matches, retrieve
from r2d2_kapture.stages.localize.missing_inputs import QueryInputs
from r2d2_kapture.stages.localize.output import TABLES
from r2d2_kapture.types import IndexArray, Report, some_names

DoubleArray = npt.NDArray[np.float64]

REPORT_NAME = "report.json"
MODELS = Contents(what="models", files=("*.bin", REPORT_NAME))


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalizedQueries:
    """Localized queries, and what says which points they observe.

    Attributes:
        cameras: of each query, in COLMAP's pixel origin; ids are those of sensors.
        cam_from_world: of those that have a pose, by name.
        keypoints: of the queries and of map images.
        matches: of the pairs.
        paired: map images of each query.
    """

    cameras: Mapping[str, pycolmap.Camera]
    cam_from_world: Mapping[str, pycolmap.Rigid3d]
    keypoints: FeatureTable
    matches: MatchTable
    paired: Mapping[str, tuple[str, ...]]

    def observations(
        self, name: str, sparse_map: SparseMap, max_error: float
    ) -> tuple[DoubleArray, dict[int, int]]:
        """The keypoints of a query, and the points of the map that they observe.

        Returns:
            (N, 2) keypoints in COLMAP's pixel origin, and the point id of each row that
            observes one; a keypoint and a point pair once, with the least error.

        Raises:
            FeatureFormatError: keypoints or matches are broken.
        """
        camera, pose = self.cameras[name], self.cam_from_world[name]
        found = read_query_matches(
            name,
            (camera.width, camera.height),
            self.paired[name],
            sparse_map,
            self.keypoints,
            self.matches,
        )
        if found.error is not None:
            raise FeatureFormatError(found.error)
        pairs = gather_correspondences(sparse_map, found.matches)
        in_camera = pose * sparse_map.points[pairs.points]
        projected = camera.img_from_cam(in_camera)
        errors = np.linalg.norm(projected - found.xy[pairs.keypoints], axis=1)
        agree = np.flatnonzero((errors <= max_error) & (in_camera[:, 2] > 0))
        order = agree[np.argsort(errors[agree], kind="stable")]
        chosen = _each_once(pairs.keypoints[order], pairs.points[order])
        ids = sparse_map.point_ids
        return found.xy, {row: int(ids[point]) for row, point in chosen.items()}


def _each_once(keypoints: IndexArray, points: IndexArray) -> dict[int, int]:
    """Pairs of keypoint and point, the first that has either."""
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for keypoint, point in zip(keypoints.tolist(), points.tolist()):
        if keypoint not in chosen and point not in taken:
            chosen[keypoint] = point
            taken.add(point)
    return chosen


def register(
    config: LocalizeConfig,
    *,
    map_path: Path,
    localized: Mapping[Path, QueryInputs],
    output: Path,
    options: RunOptions = RunOptions(),
) -> Report:
    """Write a map and the queries localized in it as one binary COLMAP model.

    Points, poses and cameras of the map stay as they are; the tracks of its points get
    the keypoints of queries that agree with the poses of these. Queries are single
    images, those of rigs too, with the cameras that localization used or found.

    Args:
        config: of localization; keypoints agree up to its ``max_error``.
        map_path: a COLMAP model, see ``read_colmap_model``.
        localized: inputs of queries by the folder of their poses; queries that are
            images of the map are left unchanged.
        output: folder of the model; it appears when complete.
        options: how to run.

    Returns:
        A report that counts queries.

    Raises:
        DatasetError, FeatureFormatError: the map or other inputs are broken.
        OutputError: the folder has other content, or cannot be written.
    """
    started = time.monotonic()
    settings = {STAGE: "register", **dataclasses.asdict(config)}
    files = list(map_files(map_path))
    for poses, inputs in localized.items():
        files += [poses / "sensors" / f"{name}.txt" for name in TABLES]
        files.append(inputs.pairs)
    finished = Finished.of(output / FINISHED_NAME, settings, files)
    if not options.force and (report := finished.report(started)):
        return report
    manifest = Manifest(
        model={},
        settings=settings,
        versions=package_versions() | {"pycolmap": pycolmap.__version__},
        inputs={"map": (str(map_path.resolve()), _digest(files))},
    )
    is_done = is_made_with(output, MODELS, manifest, options)
    earlier = read_json(output / REPORT_NAME)
    if is_done and earlier and not options.force:
        return _noted(finished, _report(earlier, started, output, done=False))
    with rebuilding(output, MODELS, manifest) as folder, quiet_pycolmap():
        model, sparse_map = read_colmap_model(map_path), read_sparse_map(map_path)
        there: list[str] = []
        count = 0
        for poses, inputs in localized.items():
            queries = _open(config, inputs, poses)
            added, known = _add(model, queries, sparse_map, config.max_error)
            count += added
            there += known
        model.write(str(folder))
        made = {
            "queries": count,
            "registered_images": model.num_reg_images(),
            "warnings": list(_known_warnings(sorted(there))),
        }
        report = _report(made, started, output, done=True)
        write_report(folder / REPORT_NAME, report, made)
    return _noted(finished, report)


def _report(
    made: Mapping[str, Any], started: float, output: Path, *, done: bool
) -> Report:
    """The report of a run, or of an earlier one whose model is there."""
    return Report(
        stage="register",
        unit="query",
        summary=f"{made['registered_images']} images in the model",
        done=made["queries"] if done else 0,
        skipped=0 if done else made["queries"],
        failed=(),
        warnings=tuple(made["warnings"]),
        seconds=time.monotonic() - started,
        outputs=(output,),
        details={"registered_images": made["registered_images"]},
    )


def _noted(finished: Finished, report: Report) -> Report:
    (output,) = report.outputs
    return finished.note(report, sorted(output.glob("*.*")))


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of the contents of those files that are there, in their order."""
    there = (path for path in files if path.is_file())
    return hashlib.sha256("".join(map(sha256_of, there)).encode()).hexdigest()


def _known_warnings(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            f"{len(names)} queries are images of the map, and keep its poses in the "
            f"model: {some_names(names)}"
        )


def _open(
    config: LocalizeConfig, inputs: QueryInputs, localized: Path
) -> LocalizedQueries:
    """Read the poses and cameras of localized queries, and open their features."""
    poses = open_dataset(localized)
    origin = find_camera_origin(inputs.query, config.camera_origin)
    keypoints, _ = place_keypoints(
        open_feature_table(inputs.features, "keypoints", inputs.keypoints_type),
        config.keypoint_origin,
        inputs.query,
        origin,
    )
    names = tuple(image_records(poses.data))
    return LocalizedQueries(
        cameras=image_cameras(poses.data, origin.origin),
        cam_from_world=read_camera_poses(poses).cam_from_world,
        keypoints=keypoints,
        matches=open_matches(inputs.matches, keypoints.type_name),
        paired=retrieve(read_pairs(inputs.pairs, keypoints), names).of_query,
    )


def _add(
    model: pycolmap.Reconstruction,
    queries: LocalizedQueries,
    sparse_map: SparseMap,
    max_error: float,
) -> tuple[int, list[str]]:
    """Register queries in a model.

    Returns:
        How many, and the names of those that are in it already.
    """
    known = {image.name for image in model.images.values()}
    names = sorted(queries.cam_from_world)
    new = [name for name in names if name not in known]
    # trivial rigs and frames have the ids of their cameras and images
    first_camera = 1 + max([*model.cameras, *model.rigs], default=0)
    image_id = 1 + max([*model.images, *model.frames], default=0)
    ids: dict[int, int] = {}
    for image_id, name in enumerate(new, image_id):
        sensor = queries.cameras[name].camera_id
        if sensor not in ids:
            ids[sensor] = first_camera + len(ids)
            camera = copy.deepcopy(queries.cameras[name])
            camera.camera_id = ids[sensor]
            model.add_camera_with_trivial_rig(camera)
        xy, points = queries.observations(name, sparse_map, max_error)
        image = pycolmap.Image(
            name=name, keypoints=xy, camera_id=ids[sensor], image_id=image_id
        )
        model.add_image_with_trivial_frame(image, queries.cam_from_world[name])
        for row, point_id in sorted(points.items()):
            element = pycolmap.TrackElement(image_id, row)
            model.add_observation(point_id, element)
    return len(new), [name for name in names if name in known]
