"""Reconstructions of VisualSFM, Bundler, OpenMVG and OpenSfM, by kapture's own tools.

What these tools get wrong is put right here: VisualSFM's keypoints count from the
middle of the image, Bundler's y points up and its world is not turned, and pixels count
from the center of the first one in the dataset.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
from kapture.io.records import TransferAction

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.imports import ImportSource
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import camera_sensors, colmap_camera, kapture_camera
from r2d2_kapture.io.kapture.dataset import check_table_name, quiet_kapture
from r2d2_kapture.io.kapture.dataset_files import DatasetFiles
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d, rigid3d_from_kapture
from r2d2_kapture.io.lists import is_number
from r2d2_kapture.io.outputs.atomic_folder import owned
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    is_made_with,
    open_ledger,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.stages.imports.target import (
    IMAGES,
    REPORT_NAME,
    TYPE,
    check_images,
    dataset_contents,
    dataset_files,
    link_images,
)
from r2d2_kapture.types import FloatArray, Report, counted, some_names

KAPTURE_ERRORS = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AssertionError),
    *(AttributeError, StopIteration, RuntimeError),
)
"""What kapture's tools raise on files that are not as they expect."""
HALF_TURN = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([1.0, 0, 0, 0])), np.zeros(3))
"""About x: from y up and z backwards to y down and z forwards."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool of kapture.

    Attributes:
        convert: reads a file or folder, with the folder of images, into a dataset;
            gives the names of images that it lists, which it may pass over.
        what: it reads.
        sizes: whether it looks into images for their sizes.
        warnings: on what is left out, for the report.
    """

    convert: Callable[[Path, Path | None, Path], Collection[str]]
    what: str
    sizes: bool = False
    warnings: tuple[str, ...] = ()


def run(
    source: ImportSource,
    *,
    model: Path,
    images: Path | None,
    output: Path,
    keypoints_type: str | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Make a kapture dataset of another tool's reconstruction.

    Args:
        source: the tool.
        model: its file or folder.
        images: folder that names are relative to.
        output: of the dataset.
        keypoints_type: name of the features, if any; by default the tool's.
        options: force is used.

    Raises:
        ConfigError: no images where their sizes are needed.
        DatasetError: kapture cannot read the files, or they hold what it cannot.
        OutputError: the output exists and must not be replaced, or cannot be written.
    """
    started = time.monotonic()
    tool = TOOLS[source]
    require(
        images is not None or not tool.sizes,
        f"--from {source}: found no --images, expected the folder of the images, whose "
        "sizes its files lack",
    )
    images = images and images.resolve()  # --force removes a link in the dataset
    settings: dict[str, Any] = {
        STAGE: "import",
        "sources": source,
        "images": None if images is None else str(images),
        TYPE: keypoints_type,
    }
    place = model.resolve()
    inside = sorted(place.glob("*.json")) + sorted(place.glob("exif/**/*"))
    files = [place, *inside, *_lists_of_names(place)]
    finished = Finished.of(output / FINISHED_NAME, settings, files)
    manifest = Manifest(
        model={},
        settings=settings,
        versions=package_versions(),
        inputs={"model": (str(place), finished.inputs)},
    )
    made_already = not options.force and is_made_with(
        output, dataset_contents(output), manifest, options
    )
    if made_already and (earlier := finished.report(started)) is not None:
        return earlier
    with tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as scratch:
        data, listed = _convert(tool, model, images, Path(scratch))
        names = [name for _, _, name in kapture.flatten(data.records_camera or {})]
        lost = sorted(set(listed) - set(names))
        warnings = (*check_images(names, images), *_lost(lost, images), *tool.warnings)
        type_name = keypoints_type or min(data.keypoints or {}, default=source)
        contents = dataset_contents(output, type_name)
        ledger = open_ledger(output, contents, manifest, options, anew=options.force)
        with ledger as emptied:
            target = dataset_files(output, type_name)
            details = _write(source, data, Path(scratch), target)
            link_images(output, images)
            target.write_sensors(_tables(data))
            report = Report(
                stage="import",
                unit="image",
                done=len(names) if emptied else 0,
                skipped=0 if emptied else len(names),
                failed=(),
                seconds=time.monotonic() - started,
                outputs=(output,),
                details=details,
                warnings=warnings,
            )
            write_report(output / REPORT_NAME, report)
            made = owned(output, contents.files) - {output / IMAGES}
            return finished.note(report, sorted(made))


def _convert(
    tool: Tool, model: Path, images: Path | None, scratch: Path
) -> tuple[kapture.Kapture, Collection[str]]:
    """Let kapture read a reconstruction, and count cameras from pixel centers.

    Returns:
        The dataset, and names of images that the tool lists.
    """
    quiet_kapture()
    for name in ("nvm", "bundler", "openmvg", "opensfm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        listed = tool.convert(model, images, scratch)
        data = kcsv.kapture_from_dir(str(scratch))
    except KAPTURE_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DatasetError(
            f"{model}: kapture's import cannot read it: {reason}; expected {tool.what}"
        ) from error
    if not data.records_camera:
        raise DatasetError(
            f"{model}: found no image that is there, expected {tool.what}, and its "
            "images in --images"
        )
    for _, _, name in kapture.flatten(data.records_camera):
        check_table_name(name, model)
    for sensor_id, sensor in camera_sensors(data).items():
        camera = colmap_camera(sensor, 0, "corner")
        data.sensors[sensor_id] = kapture_camera(camera, "center", sensor.name)
    return data, listed


def _lost(names: Collection[str], images: Path | None) -> tuple[str, ...]:
    """The warning on images that kapture's tool has passed over."""
    if not names:
        return ()
    return (
        f"{counted(len(names), 'image')} without a readable file in {images} are left "
        f"out, with what they observe: {some_names(names)}",
    )


def _tables(data: kapture.Kapture) -> kapture.Kapture:
    """Sensors, records and poses alone."""
    return kapture.Kapture(
        sensors=data.sensors,
        rigs=data.rigs,
        records_camera=data.records_camera,
        records_gnss=data.records_gnss,
        trajectories=data.trajectories,
    )


def _write(
    source: ImportSource, data: kapture.Kapture, scratch: Path, target: DatasetFiles
) -> dict[str, Any]:
    """Write keypoints, points and observations; give counts for the report."""
    sizes = {
        name: tuple(data.sensors[sensor].camera_params[:2])
        for _, sensor, name in kapture.flatten(data.records_camera)
    }
    points = np.zeros((0, 6)) if data.points3d is None else data.points3d.as_array()
    if source == "bundler":
        _turn_world(data)
        points[:, 1:3] *= -1
    count = 0
    if data.keypoints:
        target.describe_keypoints(2)
        table = open_feature_table([scratch], "keypoints")
        for name in filter(sizes.__contains__, table.image_names):
            xy = _positions(source, table, name, sizes[name])
            target.write_rows("keypoints", name, xy)
            count += len(xy)
    seen = {
        row: [pair for pair in pairs if pair[0] in sizes]
        for row, kinds in sorted((data.observations or {}).items())
        for pairs in kinds.values()
    }
    type_name = target.features.keypoints_type
    if len(points):
        rows = (row.tolist() for row in points)
        header = "X, Y, Z, R, G, B" if points.shape[1] == 6 else "X, Y, Z"
        target.write_table(kcsv.CSV_FILENAMES[kapture.Points3d], header, rows)
    if seen:
        target.write_table(
            kcsv.CSV_FILENAMES[kapture.Observations],
            "point3d_id, keypoints_type, [image_path, feature_id]*",
            (
                [row, type_name, *(field for pair in pairs for field in pair)]
                for row, pairs in seen.items()
            ),
        )
    return {
        "cameras": len(camera_sensors(data)),
        "images": len(sizes),
        "images_with_pose": sum(map(len, (data.trajectories or {}).values())),
        "images_with_gnss": sum(map(len, (data.records_gnss or {}).values())),
        TYPE: type_name if count else "",
        "keypoints": count,
        "points": len(points),
        "observations": sum(map(len, seen.values())),
    }


def _positions(
    source: ImportSource, table: FeatureTable, name: str, size: tuple[float, ...]
) -> FloatArray:
    """(N, 2) x and y from the center of the first pixel."""
    xy = table.read_stored(name)[:, :2].astype(np.float64)
    if source == "nvm":  # from the middle of the image
        xy += np.array(size) / 2
    else:  # kapture's tool adds the middle, but leaves y up
        xy[:, 1] = size[1] - xy[:, 1]
    return kapture_from_colmap(xy).astype(np.float32)


def _turn_world(data: kapture.Kapture) -> None:
    """Undo the half turn that kapture's tool gives Bundler's world."""
    for timestamp, device, pose in kapture.flatten(data.trajectories or {}):
        cam_from_turned = rigid3d_from_kapture(pose)
        if cam_from_turned is not None:
            turned = kapture_from_rigid3d(cam_from_turned * HALF_TURN)
            data.trajectories[timestamp, device] = turned


def _checked(names: Iterable[str], source: Path) -> list[str]:
    """Names that stay in their folder: kapture writes files by them as they are."""
    return [check_table_name(name, source) for name in names]


def _nvm(model: Path, images: Path | None, scratch: Path) -> Collection[str]:
    fields = (line.split() for line in model.read_text("utf-8").splitlines()[1:])
    names = [line[0] for line in fields if line and not is_number(line[0])]
    tool = importlib.import_module("tools.kapture_import_nvm")
    listed = _checked(names, model)
    tool.import_nvm(str(model), str(images), str(scratch), None, False, True)
    return listed


def _lists_of_names(model: Path) -> tuple[Path, Path]:
    """Where the names of the images of a bundle.out may be."""
    return model.with_name(f"{model.name}.list.txt"), model.with_name("list.txt")


def _bundler(model: Path, images: Path | None, scratch: Path) -> Collection[str]:
    beside = _lists_of_names(model)
    path = next((path for path in beside if path.is_file()), beside[0])
    listed = _checked(filter(None, path.read_text("utf-8").split("\n")), path)
    tool = importlib.import_module("tools.kapture_import_bundler")
    place = str(scratch)
    tool.import_bundler(str(model), str(path), str(images), place, False, True)
    return listed


def _openmvg(model: Path, images: Path | None, scratch: Path) -> Collection[str]:
    tool = importlib.import_module("kapture.converter.openmvg.import_openmvg")
    tool.import_openmvg(str(model), None, None, str(scratch), TransferAction.skip)
    return ()


def _opensfm(model: Path, images: Path | None, scratch: Path) -> Collection[str]:
    """Without features, which are not in pixels, and matches, which are pickles."""
    project = scratch / "project"
    project.mkdir()
    for name in ("reconstruction.json", "exif"):
        if (model / name).exists():
            (project / name).symlink_to((model / name).resolve())
    tool = importlib.import_module("kapture.converter.opensfm.import_opensfm")
    tool.import_opensfm(
        str(project), str(scratch), images_import_method=TransferAction.skip
    )
    return ()


TOOLS: dict[ImportSource, Tool] = {
    "nvm": Tool(convert=_nvm, what="a file NVM_V3 of VisualSFM", sizes=True),
    "bundler": Tool(
        convert=_bundler,
        what="a bundle.out of Bundler v0.3 and its list.txt beside it",
        sizes=True,
    ),
    "openmvg": Tool(
        convert=_openmvg,
        what="an sfm_data.json of OpenMVG",
        warnings=(
            "of OpenMVG only cameras, images and poses are imported; extract features "
            "and map again",
        ),
    ),
    "opensfm": Tool(
        convert=_opensfm,
        what="the folder of an OpenSfM project with reconstruction.json",
        warnings=(
            "features and tracks of OpenSfM are not imported: they are not in pixels; "
            "extract features again",
        ),
    ),
}
