"""A folder of images as a kapture dataset, with cameras from EXIF.

The focal length comes from the EXIF data by COLMAP's reader: its 35 mm equivalent, the
resolution of the focal plane, or COLMAP's list of sensor widths. Both it and a camera
without (UNKNOWN_CAMERA) are marked as approximate, so that mapping refines them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.config.cameras import MODEL_PARAMETERS, CameraMode
from r2d2_kapture.config.photographs import CameraConfig, FolderConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.colmap.cameras import (
    GUESSED_MODEL,
    UNKNOWN_CAMERA,
    colmap_camera,
    kapture_camera,
)
from r2d2_kapture.io.colmap.shots import Shot, known_shots, read_shots
from r2d2_kapture.io.images.search import find_images
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.gnss import GNSS_FILE, add_gnss
from r2d2_kapture.io.kapture.pixel_origins import write_origin
from r2d2_kapture.io.kapture.writing import write_tables
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.atomic import (
    output_error,
    read_json,
    write_json_atomic,
)
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.types import Failure, some_names

STATE_NAME = "image_folder.json"
GIVEN = "given"
DATASETS = Contents(what="dataset", files=())


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """What became of a folder of images.

    Attributes:
        root: of the kapture dataset.
        names: images of the dataset, in order.
        cameras: how many there are.
        with_focal_length: how many of them have one from EXIF.
        with_position: how many images have a position from EXIF.
        failed: images that are left out, and why.
        warnings: sentences on files that were not taken for images, see find_images,
            and on those that may be other than the user thinks.
        unchanged: how many images an earlier run found as they are.
    """

    root: Path
    names: tuple[str, ...]
    cameras: int
    with_focal_length: int
    with_position: int
    failed: tuple[Failure, ...]
    warnings: tuple[str, ...]
    unchanged: int = 0


def write_image_folder_dataset(
    images: Path,
    root: Path,
    config: FolderConfig = FolderConfig(),
    *,
    exclude: Sequence[str] = (),
    masks: Path | None = None,
    query: str | None = None,
    replace: bool = False,
) -> ImageFolder:
    """Make a kapture dataset of the images below a folder, which stay where they are.

    ``root/sensors/records_data`` becomes a link to the folder, or holds one. Timestamps
    are places in the order of names. Positions of EXIF become GNSS records. Made again,
    it is the same.

    Args:
        images: folder, searched recursively.
        root: of the dataset; not inside ``images``.
        config: which images share a camera, and what it is; of a query only known
            parameters count.
        exclude: patterns of what to leave out, see find_images.
        masks: folder of masks, left out where it lies in ``images``.
        query: name of photographs to localize: names of images begin with it, so that
            they differ from the map's, and localization finds cameras not known.
        replace: take images that have nothing in common with those of an earlier run.

    Raises:
        ConfigError: known parameters, and images of several sizes or another one.
        DatasetError: no images, or ``root`` is inside ``images``.
        OutputError: another dataset is there, one of altogether other images and no
            ``replace``, or the file system refused.
    """
    if not images.is_dir():
        what = "a file" if images.exists() else "no such folder"
        raise DatasetError(f"{images}: found {what}, expected a folder of images")
    if root.resolve().is_relative_to(images.resolve()):
        raise DatasetError(
            f"{root}: is inside the folder of images {images}, which is searched "
            "for images; choose a path outside"
        )
    if (root / "sensors").exists() and not (root / STATE_NAME).exists():
        words = "a dataset that was not made from a folder of images"
        raise DATASETS.refusal(root, words, forcible=False)
    found = find_images([str(images)], exclude, masks)
    known = known_shots(read_json(root / STATE_NAME))
    shots, failed = read_shots(images, found.paths, known, query)
    if not shots:
        raise DatasetError(
            f"{images}: none of {len(failed)} images can be used; first: "
            f"{failed[0].to_text()}"
        )
    if not replace:
        _refuse_others(root, images, shots, known.values())
    dataset, sources = _describe(shots, config, query)
    state = {
        "images": str(images.resolve()),
        "cameras": sources,
        "files": [dataclasses.asdict(shot) for shot in shots],
    }
    write_json_atomic(root / STATE_NAME, state)
    try:
        link = root / "sensors" / "records_data" / (query or "")
        link.parent.mkdir(parents=True, exist_ok=True)
        link_folder(link, images)
        if dataset.records_gnss is None:  # left of photographs that had positions
            (root / "sensors" / GNSS_FILE).unlink(missing_ok=True)
        write_tables(root, dataset)
        write_origin(root / "sensors", "center")
    except OSError as error:
        raise output_error(root, error) from error
    return ImageFolder(
        root=root,
        names=tuple(shot.name for shot in shots),
        cameras=len(sources),
        with_focal_length=sum(source == "exif" for source in sources.values()),
        with_position=sum(shot.position is not None for shot in shots),
        failed=tuple(failed),
        warnings=(*found.warnings, *_warnings(shots, config, query)),
        unchanged=sum((shot.name, *shot.stamp) in known for shot in shots),
    )


def _refuse_others(
    root: Path, images: Path, shots: Collection[Shot], known: Collection[Shot]
) -> None:
    """Refuse to replace images by those of another folder; copies may move."""
    earlier = {(shot.name, shot.stamp[0]) for shot in known}
    if earlier and earlier.isdisjoint((shot.name, shot.stamp[0]) for shot in shots):
        folder = str(read_json(root / STATE_NAME).get("images"))
        if folder != str(images.resolve()):
            found = f"the images of {shown(folder)}, none of which are in {images}"
            raise DATASETS.refusal(root, found)


def approximate_sensors(root: Path) -> frozenset[str]:
    """Cameras of a dataset that was made of a folder of images, but for given ones."""
    return frozenset(s for s, source in _sources(root).items() if source != GIVEN)


def given_cameras(root: Path) -> tuple[pycolmap.Camera, ...]:
    """The cameras of such a dataset whose parameters the user knew."""
    sources = _sources(root)
    if GIVEN not in sources.values():
        return ()
    sensors = open_dataset(root).data.sensors
    return tuple(
        colmap_camera(sensors[sensor_id], 0, "center")
        for sensor_id, source in sources.items()
        if source == GIVEN
    )


def _sources(root: Path) -> dict[str, str]:
    """Where each camera comes from; empty for other datasets."""
    cameras = read_json(root / STATE_NAME).get("cameras")
    return dict(cameras) if isinstance(cameras, dict) else {}


def _warnings(
    shots: Sequence[Shot], config: FolderConfig, query: str | None
) -> Iterator[str]:
    turned = [shot.name for shot in shots if shot.orientation != 1]
    if turned and (query is not None or len({shot.orientation for shot in shots}) > 1):
        yield (
            f"{len(turned)} of {len(shots)} photographs are stored turned or mirrored, "
            "by their EXIF orientation: without --rotations exif or auto they hardly "
            f"match upright ones: {some_names(turned)}"
        )
    broken = {s.name: s.position_fault for s in shots if s.position_fault}
    if broken:
        first = next(iter(broken))
        yield (
            f"{len(broken)} of {len(shots)} photographs have a broken GPS position in "
            f"EXIF, which is not used: {some_names(broken)} ('{shown(first)}': "
            f"{broken[first]})"
        )
    sizes = len({shot.size for shot in shots})
    if query is None and config.camera_mode == "single" and sizes > 1:
        yield (
            f"--camera-mode single: found photographs of {sizes} sizes, each of which "
            "has a camera of its own"
        )


def _describe(
    shots: list[Shot], config: FolderConfig, query: str | None
) -> tuple[kapture.Kapture, dict[str, str]]:
    """Cameras and records, and where each camera's parameters come from."""
    if query is not None and not config.params:
        config = FolderConfig(camera_mode="per-image")
    mode = config.camera_mode
    if config.params:
        check_given({shot.size for shot in shots}, config)
        mode = "single" if mode == "auto" else mode
    groups: dict[tuple[object, ...], list[Shot]] = {}
    for shot in shots:
        groups.setdefault(_camera_key(shot, mode), []).append(shot)
    sensors, sources = kapture.Sensors(), {}
    sensor_of: dict[str, str] = {}
    for number, group in enumerate(groups.values(), start=1):
        sensor_id = f"camera_{number:05d}"
        sensors[sensor_id], sources[sensor_id] = _sensor(group, config)
        sensor_of |= {shot.name: sensor_id for shot in group}
    records = kapture.RecordsCamera()
    for timestamp, shot in enumerate(shots):
        records[timestamp, sensor_of[shot.name]] = shot.name
    dataset = kapture.Kapture(sensors=sensors, records_camera=records)
    add_gnss(dataset, {s.name: s.position for s in shots if s.position is not None})
    return dataset, sources


def check_given(sizes: Collection[tuple[int, int]], config: CameraConfig) -> None:
    """Refuse known parameters where they are not those of all images.

    Args:
        sizes: (W, H) of the images in pixels.
        config: with known parameters.

    Raises:
        ConfigError: there are several sizes, or the principal point is outside.
    """
    listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
    if len(sizes) > 1:
        raise ConfigError(
            f"--camera-params: found photographs of {len(sizes)} sizes ({listed}), "
            "expected one, since parameters belong to pixels; leave those of other "
            "sizes out of the folder, or with --exclude"
        )
    camera = _given(next(iter(sizes)), config)
    x, y = camera.principal_point_x, camera.principal_point_y
    if not (0 < x < camera.width and 0 < y < camera.height):
        raise ConfigError(
            f"--camera-params {config.camera_params}: found the principal point "
            f"({x:g}, {y:g}) outside of photographs of {listed} pixels; expected "
            f"{MODEL_PARAMETERS[config.camera_model or 'PINHOLE']} in this order"
        )


def _given(size: tuple[int, int], config: CameraConfig) -> pycolmap.Camera:
    width, height = size
    return pycolmap.Camera(
        model=config.camera_model, width=width, height=height, params=config.params
    )


def _camera_key(shot: Shot, mode: CameraMode) -> tuple[object, ...]:
    folder = str(PurePosixPath(shot.name).parent)
    if mode == "single":
        return (shot.size,)
    if mode == "per-folder":
        return folder, shot.size
    if mode == "auto" and shot.focal_length is not None:
        return folder, shot.size, shot.focal_length, shot.model
    return (shot.name,)


def _sensor(group: list[Shot], config: FolderConfig) -> tuple[kapture.Camera, str]:
    """The camera of images, and where its parameters come from."""
    width, height = group[0].size
    known = [shot.focal_length for shot in group if shot.focal_length is not None]
    if config.params or not known:
        source = GIVEN if config.params else "guess"
        return camera_without_calibration((width, height), config), source
    camera = pycolmap.Camera.create_from_model_name(
        0, config.camera_model or GUESSED_MODEL, float(np.median(known)), width, height
    )
    return kapture_camera(camera, "center"), "exif"


def camera_without_calibration(
    size: tuple[int, int], config: CameraConfig
) -> kapture.Camera:
    """The camera that the user knows, or else an unknown one.

    Args:
        size: (W, H) of its images in pixels.
        config: known parameters, or the model that mapping is to estimate, which is the
            name of an unknown camera, see colmap_camera.
    """
    if config.params:
        return kapture_camera(_given(size, config), "center")
    return kapture.Camera(UNKNOWN_CAMERA, list(size), config.camera_model)


def link_folder(link: Path, target: Path) -> None:
    """Make a link to a folder, or lead one elsewhere; an empty folder gives way."""
    if link.is_symlink():
        if os.readlink(link) == str(target.resolve()):
            return
        link.unlink()
    elif link.is_dir() and not any(link.iterdir()):
        link.rmdir()
    link.symlink_to(target.resolve(), target_is_directory=True)
