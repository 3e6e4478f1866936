"""Import of COLMAP: a database, a model, or both become a kapture dataset."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import write_ahead_log
from r2d2_kapture.io.colmap.pose_priors import position_of
from r2d2_kapture.io.colmap.scene import (
    ColmapScene,
    joined,
    scene_of_database,
    scene_of_model,
    sensor_id,
)
from r2d2_kapture.io.colmap.sparse_map import map_files, read_colmap_model
from r2d2_kapture.io.colmap.stored_database import StoredDatabase, open_stored
from r2d2_kapture.io.kapture.dataset import check_table_name
from r2d2_kapture.io.kapture.gnss import (
    GnssPosition,
    LocalPosition,
    Position,
    add_gnss,
)
from r2d2_kapture.io.outputs.atomic_folder import owned
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    is_made_with,
    open_ledger,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import (
    Manifest,
    package_versions,
)
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.imports.colmap_features import (
    Features,
    features_of_database,
    features_of_model,
    import_database_features,
    import_matches,
    import_model_keypoints,
)
from r2d2_kapture.stages.imports.colmap_points import import_points
from r2d2_kapture.stages.imports.target import (
    IMAGES,
    REPORT_NAME,
    TYPE,
    check_images,
    dataset_contents,
    dataset_files,
    link_images,
)
from r2d2_kapture.types import Report, counted, some_names

MOVED = 1.0
"""Pixels by which a keypoint of both may differ: more than rounding and origins do."""
SAMPLES = 32
"""Keypoints of an image that are compared."""


def run(
    *,
    database: Path | None = None,
    model: Path | None = None,
    images: Path | None = None,
    output: Path,
    keypoints_type: str | None = None,
    check_files: bool = True,
    options: RunOptions = RunOptions(),
) -> Report:
    """Make a kapture dataset of a COLMAP database, a COLMAP model, or both.

    Databases of COLMAP 3 and 4 and binary and text models are read as they are, and
    never changed. What both know is taken from the model: cameras, rigs and frames.
    Pixels count from the center of the first one in the dataset. Run it again to
    resume.

    Args:
        database: COLMAP database: cameras, rigs, frames, images, keypoints,
            descriptors, matches, two-view geometries and pose priors.
        model: folder of a COLMAP model, or one that holds it as sparse or 0: poses,
            points and their observations; without a database keypoints too.
        images: folder that the names of images are relative to; the dataset gets a
            link to it. Without it the dataset has no pixels.
        output: folder of the kapture dataset; verified matches are in its folder
            verified, as kapture_r2d2_verify writes them.
        keypoints_type: name of the features in the dataset; by default the type that
            the database states in lower case, such as sift, else colmap.
        check_files: whether images without a file are warned of, and refused if all
            are.
        options: force and progress are used.

    Raises:
        ConfigError: neither a database nor a model.
        DatasetError: one of these cannot be read or does not belong to the other, holds
            what kapture cannot, or none of the images is in their folder.
        OutputError: the output exists and must not be replaced, or cannot be written.
    """
    started = time.monotonic()
    given = {"database": database, "model": model}
    paths = {name: path.resolve() for name, path in given.items() if path is not None}
    require(
        bool(paths),
        "--database, --model, --video: found none, expected a COLMAP database, a "
        "model, both, or videos",
    )
    images = images and images.resolve()  # --force removes a link in the dataset
    settings: dict[str, Any] = {
        STAGE: "import",
        "sources": " and ".join(paths),
        "images": None if images is None else str(images),
        TYPE: keypoints_type,
    }
    files = [] if database is None else [database, write_ahead_log(database)]
    files += [] if model is None else list(map_files(model))
    finished = Finished.of(
        output / FINISHED_NAME, settings, [path.resolve() for path in files]
    )
    manifest = Manifest(
        model={},
        settings=settings,
        versions=package_versions(),
        inputs={name: (str(path), finished.inputs) for name, path in paths.items()},
    )
    if not options.force and is_made_with(
        output, dataset_contents(output), manifest, options
    ):
        if (earlier := finished.report(started)) is not None:
            return earlier
    with ExitStack() as stack:
        source = _open(stack, database, model)
        warnings = (
            *source.warnings,
            *(check_images(source.scene.names.values(), images) if check_files else ()),
        )
        features = source.features(keypoints_type)
        contents = dataset_contents(output, features.type_name)
        ledger = open_ledger(output, contents, manifest, options, anew=options.force)
        emptied = stack.enter_context(ledger)
        new, details = _write(source, features, images, output, options)
        total = len(source.scene.names)
        report = Report(
            stage="import",
            unit="image",
            done=total if emptied else new,
            skipped=0 if emptied else total - new,
            failed=(),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details=details,
            warnings=(*warnings, *features.warnings),
        )
        write_report(output / REPORT_NAME, report)
        made = owned(output, contents.files) - {output / IMAGES}
        return finished.note(report, sorted(made))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Source:
    """What is imported.

    Attributes:
        database: None where there is none.
        model: that of a database alone is empty.
        scene: of both.
        data: sensors, rigs, records and trajectories of it.
        warnings: on what of it is left out.
    """

    database: StoredDatabase | None
    model: pycolmap.Reconstruction
    scene: ColmapScene
    data: kapture.Kapture
    warnings: tuple[str, ...]

    def features(self, type_name: str | None) -> Features:
        """The features that the dataset gets."""
        if self.database is not None:
            return features_of_database(self.database, type_name)
        return features_of_model(self.model, type_name)


def _open(stack: ExitStack, database: Path | None, model: Path | None) -> _Source:
    """Open what is given, and see that it belongs together."""
    stored = None if database is None else stack.enter_context(open_stored(database))
    found = pycolmap.Reconstruction() if model is None else read_colmap_model(model)
    if model is not None:
        _check_finite(found, model)
    if stored is None:
        scene = scene_of_model(found)
    elif model is None:
        scene = scene_of_database(stored)
    else:
        places = (str(database), str(model))
        scene = joined(scene_of_database(stored), scene_of_model(found), places)
        _check_keypoints(stored, found, model)
    place = database or model or Path()
    if not scene.names:
        raise DatasetError(f"{place}: found no image; extract features of some first")
    for name in scene.names.values():
        check_table_name(name, place)
    try:
        data = scene.to_kapture("center")
    except DatasetError as error:
        raise DatasetError(f"{place}: {error}") from error
    positions, unused = ({}, ()) if stored is None else _positions(stored)
    add_gnss(data, positions)
    return _Source(
        database=stored,
        model=found,
        scene=scene,
        data=data,
        warnings=(*_unplaced(scene), *unused),
    )


def _positions(
    database: StoredDatabase,
) -> tuple[dict[str, Position], tuple[str, ...]]:
    """Pose priors by image name; those on Earth, where there are both kinds.

    Returns:
        These, and the warning on some that are out of range.
    """
    found = {
        database.content.names[image_id]: position_of(prior)
        for image_id, prior in database.pose_priors()
    }
    kinds = {type(position) for position in found.values()}
    kind = GnssPosition if GnssPosition in kinds else LocalPosition
    positions = {
        n: position for n, position in found.items() if isinstance(position, kind)
    }
    wrong = [
        name
        for name, position in positions.items()
        if isinstance(position, GnssPosition) and not position.in_range
    ]
    left_out = (
        ("no latitude and longitude in degrees", wrong),
        ("in a local frame, beside those of others on Earth", found.keys() - positions),
    )
    return {n: position for n, position in positions.items() if n not in wrong}, tuple(
        f"pose priors of {counted(len(names), 'image')} are {what}: "
        f"{some_names(sorted(names))}; they are not imported"
        for what, names in left_out
        if names
    )


def _check_finite(model: pycolmap.Reconstruction, place: Path) -> None:
    """Refuse poses and points that an adjustment without solution leaves."""
    poses = (
        (f"pose of '{image.name}'", image.cam_from_world().matrix())
        for image in map(model.image, model.reg_image_ids())
    )
    points = ((f"point {i}", point.xyz) for i, point in model.points3D.items())
    for what, values in itertools.chain(poses, points):
        if not np.isfinite(values).all():
            raise DatasetError(
                f"{place}: {what}: found NaN or infinity, expected numbers; remove it "
                "from the model, or map again"
            )


def _check_keypoints(
    database: StoredDatabase, model: pycolmap.Reconstruction, place: Path
) -> None:
    """Refuse a model whose observations are of other keypoints, such as undistorted."""
    images = {image.name: image for image in model.images.values()}
    way_out = "give the database that the model was made of, or the model alone"
    ids = {name: image_id for image_id, name in database.content.names.items()}
    for image in model.images.values():
        found = image.num_points2D()
        expected = database.content.keypoint_counts[ids[image.name]] or 0
        if found not in (0, expected):
            raise DatasetError(
                f"{place}: found {found} keypoints of '{image.name}', expected the "
                f"{expected} of {database.path}; {way_out}"
            )
    for image_id, rows in database.keypoints():
        name = database.content.names[image_id]
        points = images[name].points2D if name in images else ()
        for i in range(0, len(points), max(1, len(points) // SAMPLES)):
            at, stored = points[i].xy, rows[i, :2]
            if np.abs(at - stored).max() > MOVED:
                raise DatasetError(
                    f"{place}: found keypoint {i} of '{name}' at {at.tolist()}, "
                    f"expected it at {stored.tolist()} as in {database.path}; "
                    f"{way_out}"
                )


def _unplaced(scene: ColmapScene) -> tuple[str, ...]:
    """The warning on cameras of rigs that kapture cannot have there."""
    if not scene.unplaced:
        return ()
    names = some_names(map(sensor_id, scene.unplaced))
    return (
        f"{counted(len(scene.unplaced), 'camera')} of rigs have no known place in them,"
        f" {names}: they become cameras outside rigs, with the same timestamps",
    )


def _write(
    source: _Source,
    features: Features,
    images: Path | None,
    output: Path,
    options: RunOptions,
) -> tuple[int, dict[str, Any]]:
    """Write the dataset; how many images got features, and counts for the report."""
    scene = source.scene
    target = dataset_files(
        output, features.type_name, descriptor_columns=features.descriptor_columns
    )
    details: dict[str, Any] = {
        "cameras": len(scene.cameras),
        "rigs": len(scene.real_rigs),
        "images": len(scene.names),
        "images_with_pose": scene.posed,
        "images_with_gnss": sum(map(len, (source.data.records_gnss or {}).values())),
        TYPE: features.type_name if features.columns else "",
    }
    bar = Progress("import", "image", len(scene.names), shown=options.progress)
    with bar:
        new, counts = (
            import_model_keypoints(source.model, features, target, bar)
            if source.database is None
            else import_database_features(source.database, features, target, bar)
        )
    details |= counts
    if source.database is not None:
        details |= import_matches(source.database, target, options.progress)
    details |= import_points(source.model, features.type_name, target)
    link_images(output, images)
    target.write_sensors(source.data)
    return new, details
