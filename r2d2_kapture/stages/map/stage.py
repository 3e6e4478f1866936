"""Mapping: verified matches in, 3D points and poses out, for COLMAP and kapture."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pycolmap

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.check import (
    check_database,
    copy_database,
    write_ahead_log,
)
from r2d2_kapture.io.colmap.database_keypoints import database_keypoints
from r2d2_kapture.io.colmap.map_dataset import MAP_DATASET_FILES, write_map_dataset
from r2d2_kapture.io.colmap.sparse_map import map_files, recorded_keypoints_type
from r2d2_kapture.io.colmap.update import remove_features_of
from r2d2_kapture.io.georeference import (
    GEOREFERENCE_NAME,
    Georeference,
    write_georeference,
)
from r2d2_kapture.io.kapture.camera_mode import regrouped
from r2d2_kapture.io.kapture.camera_sizes import unlike_sensors
from r2d2_kapture.io.kapture.dataset import (
    Dataset,
    DatasetOrPath,
    open_dataset,
)
from r2d2_kapture.io.kapture.dataset_stamps import stamped_files
from r2d2_kapture.io.kapture.depth_maps import (
    depth_map_files,
    depth_maps,
)
from r2d2_kapture.io.kapture.gnss import usable_gnss
from r2d2_kapture.io.kapture.pixel_origins import read_database_origins
from r2d2_kapture.io.kapture.refined_features import is_refined
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.map_patches import PATCHES_NAME
from r2d2_kapture.io.map_unit import (
    REPORT_NAME,
    has_metric_poses,
    map_unit,
)
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    Contents,
    is_made_with,
    rebuilding,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import FILE_NAME
from r2d2_kapture.stages.map.again import map_again
from r2d2_kapture.stages.map.checks import choose_method, left_out, maybe_turned
from r2d2_kapture.stages.map.drawing import (
    CLOUD_NAME,
    PICTURE_NAME,
    draw_model,
)
from r2d2_kapture.stages.map.manifest import map_manifest, older_manifest
from r2d2_kapture.stages.map.metric import align, georeference, map_with_priors
from r2d2_kapture.stages.map.patches import write_patches
from r2d2_kapture.stages.map.priors import find_priors
from r2d2_kapture.stages.map.reconstruct import model_numbers, triangulate
from r2d2_kapture.stages.map.report import (
    images_without_pose,
    initial_without_use,
    left_out_warnings,
    map_summary,
    not_in_database,
    report_of_earlier,
    sizes_without_use,
)
from r2d2_kapture.stages.map.sources import (
    cameras_of_sensors,
    known_cameras,
    origin_of_cameras,
)
from r2d2_kapture.stages.map.workspace import Workspace, read_verified
from r2d2_kapture.stages.turned_images import seen_as_stored
from r2d2_kapture.types import MAP_UNIT, Report

CONTENTS = Contents(
    what="maps",
    files=(
        *("**/*.bin", "**/map.ply", "**/map.png", GEOREFERENCE_NAME, PATCHES_NAME),
        *(f"kapture/**/{name}" for name in MAP_DATASET_FILES),
        REPORT_NAME,
        "report.html",
    ),
)
BESIDE_THE_MODEL = (REPORT_NAME, FILE_NAME, PICTURE_NAME, CLOUD_NAME, PATCHES_NAME)
"""Without these files a map is whole, or they are looked for by themselves."""


def run(
    config: MapConfig,
    *,
    mapping: DatasetOrPath,
    database: Path,
    output: Path,
    features: Sequence[Path] = (),
    keypoints_type: str | None = None,
    initial: Path | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Reconstruct a map from a COLMAP 4 database with verified matches.

    Triangulates points with fixed poses of the dataset, or estimates poses and points
    by incremental or global mapping. Writes ``sparse`` (a binary COLMAP model),
    ``kapture`` (a dataset with points3d, observations and the keypoints that they
    index), ``map.png`` and ``map.ply`` (coloured points and cameras), ``models``
    (further models not connected to the map, if poses were unknown), ``patches.npy``
    (a patch of each point, if the keypoints were refined), ``georeference.json`` (where
    the map lies on Earth, if its images have positions) and ``report.json``. Images
    whose file and camera differ in size are left out, and fail.

    Args:
        config: settings of mapping.
        mapping: kapture dataset of the images, with or without poses.
        database: COLMAP database by kapture_r2d2_verify; read only.
        output: folder of the map; it appears when complete.
        features: folders of the keypoints that the database was made from; by default
            those in --mapping, else x and y of the database.
        keypoints_type: of these; by default the only existing one.
        initial: map of the same images by kapture_r2d2_map, before keypoints were
            refined: points are triangulated anew at its poses and all of it is
            adjusted, instead of estimating poses anew; known poses stay as they are.
        options: how to run.

    Raises:
        DatasetError: the dataset, database or keypoints cannot be used, or do not
            belong together.
        OutputError: the output exists and was made otherwise, or cannot be written;
            ``options.force`` replaces maps only.
        ConfigError: ``keypoints_type`` is not a valid folder name, or ``initial`` is
            the output.
        ReconstructionError: no verified pairs, poses missing, or too few points for a
            map.

    Returns:
        A report whose failures are images of the database that are not in the map; a
        run that finds the map complete repeats them.
    """
    started = time.monotonic()
    require(
        initial is None or initial.resolve() != output.resolve(),
        f"--initial {initial}: found it to be --output, expected an earlier map, which "
        "stays; choose another output",
    )
    of_depth: Iterable[Path] = ()
    if config.points_from != "triangulation":
        mapping = open_dataset(mapping)
        of_depth = depth_map_files(mapping).values()
    finished = Finished.of(
        output / FINISHED_NAME,
        [
            dataclasses.asdict(config),
            keypoints_type,
            str(database.resolve()),
            str(initial),
        ],
        (
            database,
            write_ahead_log(database),
            *stamped_files(mapping),
            *of_depth,
            *(() if initial is None else map_files(initial)),
        ),
    )
    if not options.force and (report := finished.report(started)):
        return report
    dataset = open_dataset(mapping)
    warnings = check_database(database)
    poses = read_camera_poses(dataset)
    unlike = unlike_sensors(dataset)
    failed = (*dataset.left_out, *unlike.values())
    manifest = map_manifest(config, dataset, database, keypoints_type, unlike, initial)
    earlier = read_json(output / REPORT_NAME)
    older = older_manifest(earlier)
    is_done = is_made_with(output, CONTENTS, manifest, options, older=older)
    is_whole = finished.missing() <= {output / name for name in BESIDE_THE_MODEL}
    if is_done and is_whole and earlier and not options.force:
        report = report_of_earlier(earlier, output, started)
        unread = _cut_patches(config, output, dataset, options)
        report = dataclasses.replace(report, warnings=(*report.warnings, *unread))
        return _noted(finished, report, output)
    with (
        rebuilding(output, CONTENTS, manifest) as folder,
        tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as scratch,
    ):
        copy = Path(scratch) / "database.db"
        copy_database(database, copy)
        remove_features_of(copy, unlike)
        (Path(scratch) / "models").mkdir()
        content = read_verified(copy, database)
        positions, no_positions = usable_gnss(dataset)
        # unknown cameras may be shared differently than in the dataset
        groups = {image.name: image.camera_id for image in content.images}
        data = regrouped(dataset.data, groups)
        dataset = dataclasses.replace(dataset, data=data)
        cameras = cameras_of_sensors(content, dataset, database)
        told = read_database_origins(database, manifest.inputs["database"][1])
        origin = told.cameras if told else origin_of_cameras(dataset, cameras)
        workspace = Workspace(
            database=copy,
            images=dataset.image_path("."),
            scratch=Path(scratch) / "models",
            known_cameras=known_cameras(dataset, cameras),
        )
        keypoints = database_keypoints(
            copy,
            dataset,
            features,
            keypoints_type,
            told,
        )
        method = choose_method(config, content, poses, dataset.root)
        config = dataclasses.replace(config, method=method)
        known = poses.cam_from_world if method == "triangulate" else {}
        priors, too_few = find_priors(config, copy, positions)
        if known:
            models, calibration = triangulate(
                config, workspace, known, options, depth_maps(dataset)
            )
            metric = georeference(models[0], priors)
        elif initial is not None:
            models, calibration = map_again(config, workspace, initial, options)
            metric = align(models, priors)
        else:
            models, calibration, metric = map_with_priors(
                config, workspace, options, priors
            )
        if metric.georeference is not None:
            write_georeference(folder, metric.georeference)
        metric_poses = bool(known) and has_metric_poses(dataset.root)
        drawn = _write_models(models, folder, metric_poses, metric.georeference)
        write_map_dataset(
            folder / "kapture",
            models[0],
            dataset.data,
            origin=origin,
            keypoints=keypoints,
            known_poses=known,
            positions=positions,
        )
        unread = _cut_patches(config, folder, dataset, options)
        posed = known or {image.name for image in content.images}
        without_pose = {i.name for i in content.images} - set(posed)
        named = {*without_pose, *unlike}
        numbers = model_numbers(models)
        absent = left_out(models, content, config, named)
        as_stored = seen_as_stored(keypoints.folders)
        report = Report(
            stage="map",
            unit="",
            summary=map_summary(numbers | metric.details(), len(content.images)),
            done=1,
            skipped=0,
            failed=(*failed, *absent),
            warnings=(
                *warnings,
                *not_in_database(dataset, content, database),
                *left_out_warnings(without_pose),
                *no_positions,
                *too_few,
                *metric.warnings,
                *(maybe_turned(models[0], content) if as_stored else ()),
                *initial_without_use(initial if known else None),
                *sizes_without_use(config, numbers | calibration),
                *drawn,
                *unread,
            ),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details={
                "method": method,
                "images": len(content.images),
                **numbers,
                **calibration,
                **metric.details(),
                "camera_origin": origin,
                "keypoint_origin": keypoints.origin,
            },
        )
        more = {
            MAP_UNIT: map_unit(metric.georeference, metric_poses),
            "not_registered": images_without_pose(models[0], content),
        }
        write_report(folder / REPORT_NAME, report, more)
    return _noted(finished, report, output)


def _noted(finished: Finished, report: Report, output: Path) -> Report:
    """Note the end of a run, unless pictures of the map have yet to be drawn."""
    pictures = [output / name for name in (PICTURE_NAME, CLOUD_NAME)]
    files = [output / name for name in BESIDE_THE_MODEL]
    for pattern in ("sparse/*", "models/*/*", "kapture/*/*.*"):
        files += sorted(output.glob(pattern))
    drawn = all(path.is_file() for path in pictures)
    return finished.note(report, files) if drawn else report


def _write_models(
    models: list[pycolmap.Reconstruction],
    folder: Path,
    metric_poses: bool,
    georeference: Georeference | None,
) -> tuple[str, ...]:
    """Write the first model as the map and the others next to it; return warnings."""
    further = [folder / "models" / str(i) for i in range(1, len(models))]
    warnings: list[str] = []
    for model, place in zip(models, [folder / "sparse", *further], strict=True):
        place.mkdir(parents=True)
        model.write(str(place))
        beside = place if place in further else folder
        lies = None if place in further else georeference
        warnings += draw_model(
            beside, model, metric_poses=metric_poses, georeference=lies
        )
    return tuple(warnings)


def _cut_patches(
    config: MapConfig, folder: Path, dataset: Dataset, options: RunOptions
) -> tuple[str, ...]:
    """The warnings of ``write_patches``, if patches are wanted."""
    refined = is_refined(recorded_keypoints_type(folder) or "")
    if config.patches == "off" or (config.patches == "auto" and not refined):
        return ()
    return write_patches(folder, dataset.image_paths, options.workers)
