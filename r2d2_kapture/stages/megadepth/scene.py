"""Prepares one SfM model of MegaDepth: undistortion and overlaps.

Nothing here imports torch: each model is prepared in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.sparse import csr_array

from r2d2_kapture.config.megadepth import MegadepthConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import DatasetError, ImageError, OutputError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.io.images.decoding import image_size, read_rgb
from r2d2_kapture.io.kapture.camera_sizes import CameraImage, size_difference
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.outputs.atomic import read_json, remove_file, write_json_atomic
from r2d2_kapture.io.outputs.ledger import Contents, is_made_with, rebuilding
from r2d2_kapture.io.outputs.manifest import Manifest, differences, package_versions
from r2d2_kapture.stages.megadepth.layout import SceneModel, check_inputs
from r2d2_kapture.stages.megadepth.scene_info import (
    SceneInfo,
    read_depth,
    write_scene_info,
)
from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]

RECORD_NAME = "undistorted.json"
SPARSE = "sparse"
IMAGES = "images"
UNDISTORTED = Contents(
    what="undistorted images",
    files=(
        *(f"{IMAGES}/**/*.{kind}" for kind in ("[jJ]*[gG]", "[pP]*[gG]")),
        f"{SPARSE}/*.bin",
        "stereo/*.cfg",
        "run-colmap-*.sh",
        RECORD_NAME,
    ),
)
SCENES = Contents(what="scenes", files=())


@dataclass(frozen=True, kw_only=True, eq=False)
class PointsSeen:
    """The points that an image observes.

    Attributes:
        rows: (K,) of the points, ascending, each once.
        normalised_depths: (K,) z / f of each: the inverse of its scale in the image.
    """

    rows: IndexArray
    normalised_depths: DoubleArray


@dataclass(frozen=True, kw_only=True)
class SceneSummary:
    """Number of usable and unusable images of a model."""

    usable: int
    left_out: int


def summary_of(model: SceneModel, config: MegadepthConfig) -> SceneSummary | None:
    """The outcome of a finished model; None if it is not finished.

    Raises:
        OutputError: it was made with other settings.
    """
    info = read_json(_summary_path(model))
    is_undistorted = _is_undistorted(model, config, force=False)
    if not (is_undistorted and info and model.scene_info.is_file()):
        return None
    ours = _settings(config)
    theirs = {name: info.get(name) for name in ours}
    SCENES.refuse(model.scene_info, differences(theirs, ours))
    return SceneSummary(usable=info["usable"], left_out=len(info["left_out"]))


def prepare(
    model: SceneModel, config: MegadepthConfig, force: bool, threads: int
) -> None:
    """Undistort a model and write its scene info; existing outputs are kept.

    Args:
        model: to prepare.
        config: settings.
        force: start again.
        threads: number of threads for undistortion.

    Raises:
        DatasetError, ReconstructionError: it cannot be used.
        OutputError: files cannot be written.
    """
    check_inputs(model)
    for path in (model.scene_info, _summary_path(model)):
        remove_file(path)  # a run that stops here must not look finished
    if not _is_undistorted(model, config, force=force) or force:
        undistort(model, config, threads)
    info, left_out = make_scene_info(model, config)
    record = {**_settings(config), "usable": len(info), "left_out": left_out}
    write_json_atomic(_summary_path(model), record)
    # last: it marks the model as finished
    write_scene_info(model.scene_info, info)


def undistort(model: SceneModel, config: MegadepthConfig, threads: int) -> None:
    """Undistort the images with depth maps, in COLMAP's layout.

    The folder appears when it is complete. Its sparse model keeps all images.

    Raises:
        DatasetError, ReconstructionError: the model is broken, or none of its images
            can be undistorted.
        OutputError: files cannot be written.
    """
    sparse_map = read_sparse_map(model.reconstruction)
    names = _image_names(sparse_map, model.reconstruction)
    left_out = {
        name: reason
        for name in names
        if (reason := _why_not_undistorted(model, name, sparse_map.cameras[name]))
    }
    usable = [name for name in names if name not in left_out]
    _require_some(model, usable, left_out)
    options = pycolmap.UndistortCameraOptions(max_image_size=config.max_image_size)
    manifest = _undistortion(config.max_image_size)
    with rebuilding(model.undistorted, UNDISTORTED, manifest) as folder:
        try:
            with quiet_pycolmap():
                pycolmap.undistort_images(
                    folder,
                    model.reconstruction,
                    model.images,
                    image_names=usable,
                    undistort_options=options,
                    num_threads=threads,
                )
        except (ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise DatasetError(
                f"{model.reconstruction}: COLMAP cannot undistort it: {reason}"
            ) from error
        lost = [name for name in usable if not (folder / IMAGES / name).is_file()]
        if lost:
            raise OutputError(
                f"{folder}: COLMAP wrote {len(usable) - len(lost)} of {len(usable)} "
                f"images, the first missing one is '{lost[0]}'; free disk space and "
                "run again"
            )
        write_json_atomic(folder / RECORD_NAME, {"left_out": left_out})


def make_scene_info(
    model: SceneModel, config: MegadepthConfig
) -> tuple[SceneInfo, dict[str, str]]:
    """Compare the images of an undistorted model.

    Returns:
        The scene info, and the reasons of unusable images.

    Raises:
        DatasetError, ReconstructionError: it is broken, or none of its images can be
            used.
    """
    sparse = model.undistorted / SPARSE
    sparse_map = read_sparse_map(sparse)
    names = _image_names(sparse_map, sparse)
    cameras = sparse_map.cameras
    record = read_json(model.undistorted / RECORD_NAME)
    left_out: dict[str, str] = dict(record.get("left_out", {}))
    seen: dict[str, PointsSeen] = {}
    for name in names:
        if name in left_out:
            continue
        try:
            seen[name] = _points_seen(model, name, sparse_map, config)
        except (DatasetError, ImageError) as error:
            left_out[name] = str(error)
    _require_some(model, seen, left_out)
    overlaps, scale_ratios = compare_images(list(seen.values()), len(sparse_map.points))
    info = SceneInfo(
        image_paths=tuple(
            (model.undistorted / IMAGES / name).relative_to(model.output).as_posix()
            for name in seen
        ),
        depth_paths=tuple(_depth_paths(model, seen)),
        intrinsics=np.array([_intrinsics(cameras[name]) for name in seen]),
        poses=np.array([_pose(sparse_map, name) for name in seen]),
        point_counts=np.array([len(item.rows) for item in seen.values()], np.int64),
        overlaps=overlaps,
        scale_ratios=scale_ratios,
    )
    return info, left_out


def compare_images(
    images: Sequence[PointsSeen], point_count: int
) -> tuple[FloatArray, FloatArray]:
    """Compute overlaps and scale ratios of all pairs of images.

    Args:
        images: N images; each observes a point.
        point_count: of the model.

    Returns:
        (N, N) share of the points of i that j sees too, and (N, N) normalised depth in
        i over that in j: the geometric mean over the points that both see, 0 where
        there are none.
    """
    rows = np.concatenate([image.rows for image in images])
    owners = np.repeat(np.arange(len(images)), [len(image.rows) for image in images])
    logs = np.log(np.concatenate([image.normalised_depths for image in images]))
    shape = (len(images), point_count)
    seen = csr_array((np.ones(len(rows)), (owners, rows)), shape=shape)
    depths = csr_array((logs, (owners, rows)), shape=shape)
    shared = (seen @ seen.T).toarray()
    overlaps = shared / np.diag(shared)[:, None]
    # sum over the common points of log z_i - log z_j
    own = (depths @ seen.T).toarray()
    mean = (own - own.T) / np.maximum(shared, 1)
    scale_ratios = np.where(shared > 0, np.exp(mean), 0)
    return overlaps.astype(np.float32), scale_ratios.astype(np.float32)


def _points_seen(
    model: SceneModel,
    name: str,
    sparse_map: SparseMap,
    config: MegadepthConfig,
) -> PointsSeen:
    """The points of an image whose depth agrees with its depth map.

    Raises:
        ImageError, DatasetError: the image or its depth map cannot be used.
    """
    camera = sparse_map.cameras[name]
    path, depth_path = model.undistorted / IMAGES / name, model.depth_path(name)
    _require_size(path, image_size(path), camera)
    depth = read_depth(depth_path, (camera.width, camera.height))
    rows = np.unique(sparse_map.images[name].point_rows)
    pose = _pose(sparse_map, name)
    points = sparse_map.points[rows] @ pose[:3, :3].T + pose[:3, 3]
    confirmed = _confirmed(points, depth, _intrinsics(camera), config.depth_tolerance)
    if not confirmed.any():
        raise DatasetError(
            f"{depth_path}: agrees with none of the {len(rows)} 3D points of the image"
        )
    focal_length = np.sqrt(camera.focal_length_x * camera.focal_length_y)
    return PointsSeen(
        rows=rows[confirmed],
        normalised_depths=points[confirmed, 2] / focal_length,
    )


def _confirmed(
    points: DoubleArray, depth: FloatArray, intrinsics: DoubleArray, tolerance: float
) -> npt.NDArray[np.bool_]:
    """(N,) whether the depth map agrees with (N, 3) points of the camera."""
    confirmed = np.zeros(len(points), dtype=np.bool_)
    in_front = np.flatnonzero(points[:, 2] > 0)
    homogeneous = points[in_front] @ intrinsics.T
    pixels = homogeneous[:, :2] / homogeneous[:, 2:]
    height, width = depth.shape
    nearest = np.rint(pixels)
    inside = ((nearest >= 0) & (nearest < (width, height))).all(axis=1)
    columns, rows = nearest[inside].astype(np.intp).T
    there = depth[rows, columns]
    ratio = there / points[in_front[inside], 2]
    confirmed[in_front[inside]] = (there > 0) & (np.abs(ratio - 1) <= tolerance)
    return confirmed


def _why_not_undistorted(
    model: SceneModel, name: str, camera: pycolmap.Camera
) -> str | None:
    """Why an image is left out; COLMAP aborts at images of another size."""
    if not model.depth_path(name).is_file():
        return f"{model.depth_path(name)}: no depth map"
    path = model.images / name
    try:
        height, width = read_rgb(path).shape[:2]
        _require_size(path, (width, height), camera)
    except (ImageError, DatasetError) as error:
        return str(error)
    return None


def _require_size(path: Path, found: tuple[int, int], camera: pycolmap.Camera) -> None:
    size = (camera.width, camera.height)
    image = CameraImage(path=path, size=size, camera="its camera")
    if (difference := size_difference(image, found)) is not None:
        raise DatasetError(f"{path}: {difference}")


def _require_some(
    model: SceneModel, usable: Collection[str], left_out: Mapping[str, str]
) -> None:
    if not usable:
        first = next(iter(left_out.values()), "no image")
        raise DatasetError(
            f"{model.reconstruction}: none of {len(left_out)} images can be used; the "
            f"first: {first}"
        )


def _image_names(sparse_map: SparseMap, source: Path) -> list[str]:
    """Names of the registered images, sorted.

    Raises:
        DatasetError: a name leads out of the folder of images.
    """
    return [check_relative_name(name, source) for name in sparse_map.images]


def _intrinsics(camera: pycolmap.Camera) -> DoubleArray:
    """(3, 3); the principal point counts from the centre of the first pixel."""
    intrinsics = np.array(camera.calibration_matrix(), dtype=np.float64)
    intrinsics[:2, 2] = kapture_from_colmap(intrinsics[:2, 2])
    return intrinsics


def _pose(sparse_map: SparseMap, name: str) -> DoubleArray:
    return np.vstack([sparse_map.images[name].cam_from_world, [0, 0, 0, 1]])


def _depth_paths(model: SceneModel, names: Iterable[str]) -> Iterator[str]:
    """Path relative to the output folder if inside, else absolute."""
    for name in names:
        path = Path(os.path.abspath(model.depth_path(name)))
        output = Path(os.path.abspath(model.output))
        inside = path.is_relative_to(output)
        yield (path.relative_to(output) if inside else path).as_posix()


def _summary_path(model: SceneModel) -> Path:
    return model.scene_info.with_suffix(".json")


def _undistortion(max_image_size: int | None) -> Manifest:
    return Manifest(
        model={},
        settings={"max_image_size": max_image_size},
        versions=package_versions() | {"pycolmap": pycolmap.__version__},
    )


def _is_undistorted(model: SceneModel, config: MegadepthConfig, *, force: bool) -> bool:
    """Whether a model is undistorted with these settings; refuse others."""
    record = read_json(model.undistorted / RECORD_NAME)
    # as version 0.1 wrote it
    older = _undistortion(record["max_image_size"]) if len(record) > 1 else None
    return is_made_with(
        model.undistorted,
        UNDISTORTED,
        _undistortion(config.max_image_size),
        RunOptions(force=force),
        older=older,
    )


def _settings(config: MegadepthConfig) -> dict[str, Any]:
    return {
        "max_image_size": config.max_image_size,
        "depth_tolerance": config.depth_tolerance,
    }
