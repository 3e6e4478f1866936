"""RobotCar Seasons, versions 1 and 2: three cameras on a car, at 49 locations.

A location is a COLMAP model of the reference condition, and a list of queries taken in
others. Version 2 has poses of some of these, which become part of the map. Cameras,
rig and these poses are read by kapture's functions; its importer of the whole reads all
locations and their points at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import kapture
import pycolmap
from tools.kapture_import_RobotCar_Seasons import (
    import_robotcar_cameras,
    import_robotcar_rig,
    read_robotcar_v2_train,
)

from r2d2_kapture.errors import UNREADABLE, DatasetError
from r2d2_kapture.io.benchmarks.splits import Scene, Shot, Split, required
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.io.lists import read_list_lines

MODELS = Path("3D-models/individual/colmap_reconstructions")
QUERIES = Path("3D-models/individual/queries_per_location")
TRAIN_NAME = "robotcar_v2_train.txt"
SIDES = ("left", "rear", "right")
RIG = "car"
NAME = re.compile(r"(?P<condition>.+)/(?P<side>\w+)/(?P<time>\d+)\.\w+")
Poses = Mapping[str, pycolmap.Rigid3d]
Read = TypeVar("Read")


def read_robotcar(model: Path) -> Scene:
    """Read a location, given the folder of its model, such as 001_aligned.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    root = model.parents[len(MODELS.parts)]
    location = model.name.split("_")[0]
    expected = "calibration of left, rear and right"
    intrinsics = required(root / "intrinsics", expected)
    extrinsics = required(root / "extrinsics", expected)
    sensors = dict(_read(intrinsics, import_robotcar_cameras))
    rigs = _read(extrinsics, import_robotcar_rig)
    for side in SIDES:
        required(intrinsics / f"{side}_intrinsics.txt", "fx, fy, cx and cy of a camera")
        required(extrinsics / f"{side}_extrinsics.txt", "a 4 x 4 matrix camera-to-car")
    listed = _queries(root / QUERIES / f"queries_location_{location}.txt")
    trained = _train_poses(root / TRAIN_NAME, rigs)
    reference = _model_poses(model)
    mapping = {**reference, **{n: p for n, p in trained.items() if n in listed}}
    posed = [_shot(root, name, pose) for name, pose in sorted(mapping.items())]
    queries = [_shot(root, name, None) for name in listed if name not in trained]
    return Scene(
        mapping=Split(shots=tuple(posed), sensors=sensors),
        queries={"query": Split(shots=tuple(queries), sensors=sensors, rigs=rigs)},
    )


def _read(folder: Path, function: Callable[[str], Read]) -> Read:
    try:
        return function(str(folder))
    except UNREADABLE as error:
        raise DatasetError(
            f"{folder}: cannot be read ({' '.join(str(error).split())}), expected "
            "left_, rear_ and right_ files as in the dataset"
        ) from error


def _shot(root: Path, name: str, pose: pycolmap.Rigid3d | None) -> Shot:
    found = NAME.fullmatch(name)
    if found is None or found["side"] not in SIDES:
        raise DatasetError(
            f"{root}: found the image name '{name}', expected such as "
            "'night/rear/1418133732744920.jpg'"
        )
    return Shot(
        name=name,
        path=root / "images" / name,
        sensor_id=found["side"],
        timestamp=int(found["time"]),
        cam_from_world=pose,
    )


def _queries(path: Path) -> list[str]:
    required(path, "the queries of a location, one name per line")
    lines = read_list_lines(path, "a list of queries")
    return [_jpg(line.strip()) for line in lines if line.strip()]


def _jpg(name: str) -> str:
    """Models and lists call images .png that are published as .jpg."""
    return name.replace(".png", ".jpg")


def _model_poses(model: Path) -> dict[str, pycolmap.Rigid3d]:
    try:
        with quiet_pycolmap():
            found = pycolmap.Reconstruction(str(model))
    except UNREADABLE as error:
        raise DatasetError(
            f"{model}: found no COLMAP model, expected cameras, images and points3D "
            "(.bin or .txt) of the reference condition"
        ) from error
    return {
        _jpg(image.name): image.cam_from_world()
        for image in found.images.values()
        if image.has_pose
    }


def _train_poses(path: Path, rigs: kapture.Rigs) -> dict[str, pycolmap.Rigid3d]:
    """Of version 2: poses of rear images, and those of the sides, from the rig."""
    if not path.is_file():
        return {}
    found: dict[str, pycolmap.Rigid3d] = {}
    for name, pose in _read(path.parent, read_robotcar_v2_train).items():
        rear_from_world = rigid3d_from_kapture(pose, f"{path}: {name}")
        if rear_from_world is not None:
            found |= dict(_of_the_car(name, rear_from_world, rigs))
    return found


def _of_the_car(
    name: str, rear_from_world: pycolmap.Rigid3d, rigs: kapture.Rigs
) -> Iterator[tuple[str, pycolmap.Rigid3d]]:
    sides = {side: rigid3d_from_kapture(pose) for side, pose in rigs[RIG].items()}
    rear_from_car = sides["rear"]
    for side, side_from_car in sides.items():
        if side_from_car is not None and rear_from_car is not None:
            side_from_world = side_from_car * rear_from_car.inverse() * rear_from_world
            yield name.replace("/rear/", f"/{side}/"), side_from_world
