"""7-Scenes and RIO10: sequences of colour images with depth maps and poses.

A frame is ``frame-000000.color.png``, ``.depth.png`` (16 bits, millimetres) and
``.pose.txt`` (4 x 4, camera to world). Formats: microsoft.com, "RGB-D Dataset
7-Scenes", and the README of github.com/WaldJohannaU/RIO10. kapture's importers read the
same, but write every depth map as raw floats, 7-Scenes' twice and without regard to
what hides what, stop at a blank line of a split, and take all scenes of RIO10 at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import kapture
import numpy as np
import pycolmap
from PIL import Image
from tools.kapture_import_RIO10 import INTRINSICS

from r2d2_kapture.errors import UNREADABLE, DatasetError
from r2d2_kapture.io.benchmarks.splits import (
    Scene,
    Shot,
    Split,
    read_matrix,
    required,
    rigid3d,
)
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.types import FloatArray

SEVEN_SCENES_SIZE = 640, 480
COLOUR_FOCAL, DEPTH_FOCAL = 525.0, 585.0
"""Pixels; the authors give that of depth, and users of the images that of colour."""
COLOUR_FROM_DEPTH = (
    (0.99996518012567637, 0.00267651264689, -0.00790410123130, -0.02555894317),
    (-0.00274093112813, 0.99996302803027, -0.00815045207780, 0.00010109636),
    (0.00788199421304, 0.00817183287719, 0.99993554558014, 0.00203183217),
)
"""Of a Kinect by LIRIS (projet.liris.cnrs.fr/voir), as in kapture and DSAC*: poses of
7-Scenes are those of the depth camera."""
UNKNOWN_DEPTH = 65535
RIO10_SIZE = 540, 960


def read_seven_scenes(scene: Path) -> Scene:
    """Read a scene: TrainSplit.txt is the map, TestSplit.txt is localized.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    return Scene(
        mapping=_seven_scenes_split(scene, "TrainSplit.txt"),
        queries={"test": _seven_scenes_split(scene, "TestSplit.txt")},
    )


def _seven_scenes_split(scene: Path, list_name: str) -> Split:
    path = required(scene / list_name, "a list of sequences, such as 'sequence1'")
    shots: list[Shot] = []
    for line in read_list_lines(path, "a list of sequences"):
        if not line.strip():
            continue
        found = re.fullmatch(r"sequence\s*(\d+)", line.strip())
        if found is None:
            raise DatasetError(
                f"{path}: found '{line.strip()[:40]}', expected such as 'sequence1'"
            )
        name = f"seq-{int(found[1]):02}"
        folder = required(scene / name, f"the frames of a sequence that {path} lists")
        shots += _frames(folder, "depth", "kinect", len(shots), colour_from_depth())
    width, height = SEVEN_SCENES_SIZE
    parameters = [width, height, COLOUR_FOCAL, width / 2, height / 2]
    return Split(
        shots=tuple(shots),
        sensors={"kinect": kapture.Camera("SIMPLE_PINHOLE", parameters)},
        origin="corner",
        read_depth=read_registered_depth,
    )


def colour_from_depth() -> pycolmap.Rigid3d:
    """The place of 7-Scenes' colour camera, in metres."""
    return pycolmap.Rigid3d(np.array(COLOUR_FROM_DEPTH))


def read_rio10(scene: Path) -> Scene:
    """Read a scene: seqXX_01 is the map, seqXX_02 has public poses, others have none.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    folders = sorted(path for path in scene.glob("seq??_??") if path.is_dir())
    numbered = {int(path.name[-2:]): path for path in folders}
    if 1 not in numbered or len(numbered) < 2:
        found = ", ".join(path.name for path in folders) or "no sequence"
        raise DatasetError(
            f"{scene}: found {found}, expected seqXX_01 (the map) and others"
        )
    test = [path for number, path in numbered.items() if number > 2]
    queries = {"validation": [numbered[2]] if 2 in numbered else [], "test": test}
    return Scene(
        mapping=_rio10_split([numbered[1]]),
        queries={name: _rio10_split(paths) for name, paths in queries.items() if paths},
    )


def _rio10_split(folders: Sequence[Path]) -> Split:
    shots: list[Shot] = []
    sensors: dict[str, kapture.Camera] = {}
    for folder in folders:
        if folder.name not in INTRINSICS:
            raise DatasetError(
                f"{folder}: found a sequence without known intrinsics, expected one of "
                f"{min(INTRINSICS)} to {max(INTRINSICS)}"
            )
        parameters = [*RIO10_SIZE, *INTRINSICS[folder.name]]
        sensors[folder.name] = kapture.Camera("PINHOLE", parameters)
        shots += _frames(folder, "rendered.depth", folder.name, len(shots))
    return Split(shots=tuple(shots), sensors=sensors, read_depth=read_millimetres)


def _frames(
    folder: Path,
    depth: str,
    sensor_id: str,
    first: int,
    cam_from_posed: pycolmap.Rigid3d | None = None,
) -> Iterator[Shot]:
    """The frames of a sequence.

    Args:
        folder: of the sequence.
        depth: what names of depth maps end in.
        sensor_id: of the camera.
        first: timestamp, from which they are numbered.
        cam_from_posed: place of the camera relative to that of the poses; None where it
            is the same and poses may be missing, or lost (INF).
    """
    images = sorted(folder.glob("frame-*.color.*"))
    if not images:
        raise DatasetError(
            f"{folder}: found no frame, expected such as frame-000000.color.png; "
            "unpack the archive of the sequence"
        )
    for timestamp, path in enumerate(images, first):
        frame = path.name.split(".")[0]
        depth_path = folder / f"{frame}.{depth}.png"
        yield Shot(
            name=f"{folder.name}/{path.name}",
            path=path,
            sensor_id=sensor_id,
            timestamp=timestamp,
            cam_from_world=_pose(folder / f"{frame}.pose.txt", cam_from_posed),
            depth=depth_path if depth_path.is_file() else None,
        )


def _pose(
    path: Path, cam_from_posed: pycolmap.Rigid3d | None
) -> pycolmap.Rigid3d | None:
    if cam_from_posed is not None:
        return cam_from_posed * rigid3d(read_matrix(path), path).inverse()
    matrix = read_matrix(path) if path.is_file() else np.full((4, 4), np.nan)
    return rigid3d(matrix, path).inverse() if np.isfinite(matrix).all() else None


def read_millimetres(path: Path) -> FloatArray:
    """(H, W) metres of a depth map in millimetres, 0 where unknown.

    Raises:
        DatasetError: it cannot be read.
    """
    required(path, "a depth map of 16 bits in millimetres")
    try:
        with Image.open(path) as image:
            depth = np.asarray(image).astype(np.float32)
    except UNREADABLE as error:
        raise DatasetError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); unpack it again"
        ) from error
    return np.where(depth == UNKNOWN_DEPTH, 0, depth / 1000).astype(np.float32)


def read_registered_depth(path: Path) -> FloatArray:
    """The depth map of 7-Scenes as the colour camera sees it, nearest surfaces first.

    Raises:
        DatasetError: it cannot be read, or is of another size.
    """
    depth = read_millimetres(path)
    width, height = SEVEN_SCENES_SIZE
    if depth.shape != (height, width):
        raise DatasetError(
            f"{path}: found {depth.shape[1]} x {depth.shape[0]} pixels, expected "
            f"{width} x {height}"
        )
    rows, columns = np.nonzero(depth)
    z = depth[rows, columns].astype(np.float64)
    middle = np.array([width - 1, height - 1]) / 2
    rays = (np.column_stack([columns, rows]) - middle) / DEPTH_FOCAL
    there = colour_from_depth() * (
        np.column_stack([rays, np.ones(len(z))]) * z[:, None]
    )
    pixels = np.rint(COLOUR_FOCAL * there[:, :2] / there[:, 2:] + middle).astype(int)
    inside = ((pixels >= 0) & (pixels < SEVEN_SCENES_SIZE)).all(axis=1)
    order = np.flatnonzero(inside)
    order = order[np.argsort(-there[order, 2], kind="stable")]
    registered = np.zeros((height, width), np.float32)
    registered[pixels[order, 1], pixels[order, 0]] = there[order, 2]
    return registered
