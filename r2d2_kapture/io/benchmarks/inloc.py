"""InLoc: cutouts of scans with the place of every pixel, and photographs of a phone.

``DUC_cutout_000_0_0.jpg.mat`` has XYZcut, the places of the pixels in the frame of its
scan; ``database/alignments`` the pose of each scan. The camera of a cutout is not
published: it is the one that sees XYZcut at its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import pycolmap
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import UNREADABLE, DatasetError
from r2d2_kapture.io.benchmarks.splits import (
    Array,
    Scene,
    Shot,
    Split,
    required,
    rigid3d,
)
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.types import FloatArray

CUTOUTS = "database/cutouts"
QUERIES = "query/iphone7"
FIELD_OF_VIEW = np.radians(60)
"""Of cutouts, from side to side; only where the search for the camera begins."""
QUERY_FOCAL = 28 / 36
"""Focal length of the phone, in units of the longest side (Taira et al., CVPR 2018)."""
STEP = 8
"""Pixels between those that decide the camera of a cutout."""
LEAST_SHARE = 0.5
"""Of these pixels, that must agree with the camera."""
MAX_ERROR = 4.0
SAVED_EVERY = 100


def read_inloc(scene: Path, cameras: Path) -> Scene:
    """Read the cutouts, which are the map, and the photographs to localize.

    Args:
        scene: folder of the dataset.
        cameras: a JSON file for the cameras of the cutouts, which take a while to find;
            those that it has from an earlier run are taken.

    Raises:
        DatasetError: a file is missing or malformed.
        OutputError: ``cameras`` cannot be written.
    """
    known = read_json(cameras)
    folder = required(scene / CUTOUTS, "folders such as DUC1/000 of cutouts")
    paths = sorted(folder.glob("*/*/*.jpg"))
    if not paths:
        raise DatasetError(
            f"{folder}: found no cutout, expected such as "
            "DUC1/000/DUC_cutout_000_0_0.jpg"
        )
    for number, path in enumerate(paths, 1):
        name = path.relative_to(scene).as_posix()
        stamp = required(_scan(path), "XYZcut of the cutout").stat().st_mtime_ns
        if known.get(name, {}).get("stamp") != stamp:
            known[name] = {"stamp": stamp, **_find_camera(scene, path)}
            if number % SAVED_EVERY == 0:
                write_json_atomic(cameras, known)
    write_json_atomic(cameras, known)
    return Scene(
        mapping=_cutouts(scene, paths, known), queries={"query": _photographs(scene)}
    )


def _scan(cutout: Path) -> Path:
    return cutout.with_name(f"{cutout.name}.mat")


def _cutouts(scene: Path, paths: list[Path], known: Mapping[str, Any]) -> Split:
    shots, sensors = [], {}
    for timestamp, path in enumerate(paths):
        name = path.relative_to(scene).as_posix()
        found = known[name]
        posed = found["cam_from_world"] is not None
        width, height = image_size(path)
        focal = found["focal"] or _first_focal(width)
        parameters = [width, height, focal, width / 2, height / 2]
        sensors[name] = kapture.Camera("SIMPLE_PINHOLE", parameters)
        shots.append(
            Shot(
                name=name,
                path=path,
                sensor_id=name,
                timestamp=timestamp,
                cam_from_world=_pose_of(found) if posed else None,
                depth=_scan(path) if posed else None,
            )
        )
    return Split(
        shots=tuple(shots),
        sensors=sensors,
        origin="corner",
        read_depth=partial(_read_depth, scene, known),
    )


def _photographs(scene: Path) -> Split:
    folder = required(scene / QUERIES, "photographs such as IMG_0731.JPG")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png"))
    shots, sensors = [], {}
    for timestamp, path in enumerate(paths):
        width, height = image_size(path)
        sensor_id = f"iphone7_{width}x{height}"
        focal = QUERY_FOCAL * max(width, height)
        parameters = [width, height, focal, width / 2, height / 2]
        sensors[sensor_id] = kapture.Camera("SIMPLE_PINHOLE", parameters)
        name = path.relative_to(scene).as_posix()
        shots.append(
            Shot(name=name, path=path, sensor_id=sensor_id, timestamp=timestamp)
        )
    return Split(shots=tuple(shots), sensors=sensors, origin="corner")


def _first_focal(width: int) -> float:
    return float(width / 2 / np.tan(FIELD_OF_VIEW / 2))


def _pose_of(found: Mapping[str, Any]) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(np.array(found["cam_from_world"]))


def _find_camera(scene: Path, cutout: Path) -> dict[str, Any]:
    """Focal length and pose (3, 4) of a cutout; None where its scan decides none."""
    xyz = _read_places(scene, cutout)
    height, width = xyz.shape[:2]
    rows, columns = (a.ravel() for a in np.mgrid[0:height:STEP, 0:width:STEP])
    places = xyz[rows, columns]
    known = np.isfinite(places).all(axis=1)
    pixels = np.column_stack([columns, rows])[known].astype(np.float64)
    camera = pycolmap.Camera(
        model="SIMPLE_PINHOLE",
        width=width,
        height=height,
        params=[_first_focal(width), width / 2, height / 2],
    )
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = MAX_ERROR
    options.ransac.random_seed = 0
    refinement = pycolmap.AbsolutePoseRefinementOptions(refine_focal_length=True)
    with quiet_pycolmap():
        found = pycolmap.estimate_and_refine_absolute_pose(
            colmap_from_kapture(pixels), places[known], camera, options, refinement
        )
    if found is None or found["num_inliers"] < max(4, LEAST_SHARE * len(pixels)):
        return {"focal": None, "cam_from_world": None}
    pose = found["cam_from_world"].matrix().tolist()
    return {"focal": camera.focal_length, "cam_from_world": pose}


def _read_depth(scene: Path, known: Mapping[str, Any], scan: Path) -> FloatArray:
    """(H, W) depth of the cutout of a scan file, 0 where unknown."""
    cutout = scan.with_name(scan.name.removesuffix(".mat"))
    xyz = _read_places(scene, cutout)
    found = known[cutout.relative_to(scene).as_posix()]
    depth = (_pose_of(found) * xyz.reshape(-1, 3))[:, 2].reshape(xyz.shape[:2])
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _read_places(scene: Path, cutout: Path) -> Array:
    """(H, W, 3) place of each pixel of a cutout in the world; NaN where unknown."""
    path = _scan(cutout)
    try:
        xyz = np.asarray(loadmat(path)["XYZcut"], np.float64)
    except (MatReadError, NotImplementedError, *UNREADABLE) as error:
        raise DatasetError(
            f"{path}: cannot be read ({' '.join(str(error).split())}), expected MATLAB "
            "5 with XYZcut; unpack it again"
        ) from error
    width, height = image_size(cutout)
    if xyz.shape != (height, width, 3):
        raise DatasetError(
            f"{path}: found XYZcut of {xyz.shape}, expected ({height}, {width}, 3), "
            "the size of the cutout"
        )
    world_from_scan = _scan_pose(scene, cutout)
    places: Array = (world_from_scan * xyz.reshape(-1, 3)).reshape(xyz.shape)
    return places


def _scan_pose(scene: Path, cutout: Path) -> pycolmap.Rigid3d:
    """world_from_scan: the last four lines of four numbers, after alignment."""
    building, number = cutout.parts[-3], cutout.parts[-2]
    prefix = cutout.name[:3]
    path = scene / "database/alignments" / building / "transformations"
    path = path / f"{prefix}_trans_{number}.txt"
    required(path, "the pose of a scan, P_after_GICP")
    rows = []
    for line in read_list_lines(path, "the pose of a scan"):
        try:
            rows.append([float(field) for field in line.split()])
        except ValueError:
            continue  # a title
    matrix = np.array([row for row in rows if len(row) == 4][-4:])
    if matrix.shape != (4, 4):
        raise DatasetError(
            f"{path}: found {len(matrix)} lines of 4 numbers, expected the 4 of "
            "P_after_GICP"
        )
    return rigid3d(matrix, path)
