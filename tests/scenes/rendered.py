"""A room of textured squares, whose depths and poses are exact, as kapture has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from kapture.io.records import depth_map_to_file, get_depth_map_fullpath

from r2d2_kapture.synthetic.dataset import Shot, write_shots
from r2d2_kapture.synthetic.rendering import (
    PinholeCamera,
    Rectangle,
    Scene,
    look_at,
    project_scene,
    sample_grid,
    visible_surfaces,
)
from r2d2_kapture.training.loading import PairSource
from r2d2_kapture.training.lookups import DepthMap, inverse_of_depth
from r2d2_kapture.training.pairs import crop_pair
from r2d2_kapture.training.posed_pairs import PinholeModel, PosedPicture

Array = npt.NDArray[np.float64]
Poses = Mapping[str, Array]
Point = tuple[float, float, float]


def square(origin: Point, edge_u: Point, edge_v: Point, seed: int) -> Rectangle:
    """A rectangle of coloured noise in fields that are smooth from afar."""
    coarse = np.random.default_rng(seed).uniform(0.1, 0.9, (24, 24, 3))
    return Rectangle(
        origin=np.array(origin, dtype=float),
        edge_u=np.array(edge_u, dtype=float),
        edge_v=np.array(edge_v, dtype=float),
        texture=np.kron(coarse, np.ones((8, 8, 1))).astype(np.float32),
    )


ROOM = Scene(
    rectangles=(
        square((-6, 4, 5), (12, 0, 0), (0, 0, -8), 0),
        square((-5, 3.5, 0), (10, 0, 0), (0, -3.4, 0), 1),
        square((0, 2.6, 1.6), (0.8, 0.2, 0), (0, 0, -0.8), 2),
    )
)
"""A wall, a floor, and a square in front of them; they fill every view."""


def render_depth(
    scene: Scene, cam_from_world: Array, camera: PinholeCamera
) -> npt.NDArray[np.float32]:
    """Exact depth at the centre of every pixel.

    Args:
        scene: what is seen.
        cam_from_world: (4, 4) float64 rigid transform, metres.
        camera: image size and focal length in pixels.

    Returns:
        (H, W) float32, metres along the camera's z axis; infinite where nothing is.
    """
    homographies, windows = project_scene(scene, cam_from_world, camera)
    x, y = sample_grid(camera, 1)
    inverse_depth = visible_surfaces(homographies, windows, x, y).inverse_depth
    depth = np.full_like(inverse_depth, np.inf)
    np.divide(1, inverse_depth, out=depth, where=inverse_depth > 0)
    return depth


def look_into_the_room(x: float, y: float) -> Array:
    """(4, 4) cam_from_world of a camera that stands on the floor at (x, y)."""
    return look_at(np.array([x, y, 1.3]), np.array([0.2, 3.0, 1.0]))


def picture_of(
    name: str, pose: Array, camera: PinholeCamera, scene: Scene = ROOM
) -> PosedPicture:
    """A photograph whose depth is exact, as the sources of training pairs have it."""
    depth = render_depth(scene, pose, camera)
    return PosedPicture(
        name=name,
        path=Path(name),
        camera=PinholeModel(size=camera.image_size, intrinsics=camera.intrinsics),
        cam_from_world=pose,
        read_inverse_depth=lambda: inverse_of_depth(depth),
    )


def depth_of(picture: PosedPicture) -> DepthMap:
    return DepthMap(picture.read_inverse_depth(), picture.camera.size)


def write_photographs(root: Path, poses: Poses, camera: PinholeCamera) -> Path:
    """A kapture dataset of one camera; image i is taken at time i."""
    shots = [
        Shot(name=name, cam_from_world=pose, exposure=1.0)
        for name, pose in poses.items()
    ]
    write_shots(root, ROOM, camera, shots, first_timestamp=0)
    return root


def add_depth_maps(
    root: Path,
    poses: Poses,
    camera: PinholeCamera,
    change: Callable[[kapture.Kapture], None] = lambda data: None,
) -> Path:
    """Give the dataset of these photographs a depth map of each.

    Args:
        root: of the dataset.
        poses: of its images.
        camera: of its images.
        change: made of the records before they are written.
    """
    data = kcsv.kapture_from_dir(str(root))
    sensor = data.sensors["camera"]
    data.sensors["depth"] = kapture.Camera(
        sensor.camera_type, sensor.camera_params, name="depth", sensor_type="depth"
    )
    data.records_depth = kapture.RecordsDepth()
    for timestamp, (name, pose) in enumerate(poses.items()):
        data.records_depth[timestamp, "depth"] = f"{name}.depth"
        path = Path(get_depth_map_fullpath(str(root), f"{name}.depth"))
        path.parent.mkdir(parents=True, exist_ok=True)
        depth = render_depth(ROOM, pose, camera)
        known = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
        depth_map_to_file(str(path), known)
    change(data)
    kcsv.kapture_to_dir(str(root), data)
    return root


def points_of_the_room(poses: Poses, camera: PinholeCamera, count: int) -> Array:
    """(N, 3) random points in world coordinates, as many of what each view sees."""
    rng = np.random.default_rng(0)
    width, height = camera.image_size
    points = []
    for pose in poses.values():
        depth = render_depth(ROOM, pose, camera)
        each = count // len(poses)
        x, y = rng.integers(0, width, each), rng.integers(0, height, each)
        pixels = np.stack([x, y, np.ones(each)])
        there = np.linalg.inv(camera.intrinsics) @ pixels * depth[y, x]
        points.append((there.T - pose[:3, 3]) @ pose[:3, :3])
    return np.concatenate(points)


def sees(
    pose: Array, points: Array, camera: PinholeCamera, tolerance: float = 0.02
) -> npt.NDArray[np.bool_]:
    """(N,) whether a view shows points, and nothing hides them."""
    there = points @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = (there @ camera.intrinsics.T).T
    width, height = camera.image_size
    column, row = np.rint(x / z).astype(int), np.rint(y / z).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0)
    depth = render_depth(ROOM, pose, camera)
    found = depth[np.where(inside, row, 0), np.where(inside, column, 0)]
    return np.asarray(inside & (np.abs(found / z - 1) < tolerance))


def reconstruction_of(
    poses: Poses,
    points: Array,
    camera: pycolmap.Camera,
    tracks: Mapping[str, npt.NDArray[np.intp]],
) -> pycolmap.Reconstruction:
    """The model of images; each keypoint sees a point.

    The tracks are rows of the points, by image.
    """
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    elements: list[list[tuple[int, int]]] = [[] for _ in points]
    for image_id, (name, pose) in enumerate(poses.items(), 1):
        rows = tracks[name]
        there = points[rows] @ pose[:3, :3].T + pose[:3, 3]
        keypoints = camera.img_from_cam(there) if len(rows) else []
        image = pycolmap.Image(name=name, camera_id=camera.camera_id, image_id=image_id)
        image.points2D = pycolmap.Point2DList(
            [pycolmap.Point2D(keypoint) for keypoint in keypoints]
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
        for keypoint, row in enumerate(rows):
            elements[row].append((image_id, keypoint))
    for point, seen in zip(points, elements):
        if seen:
            track = pycolmap.Track([pycolmap.TrackElement(*e) for e in seen])
            model.add_point3D(point, track, np.zeros(3, np.uint8))
    return model


def correlations(
    source: PairSource,
    draws: Iterable[tuple[int, int]],
    *,
    crop_size: int = 48,
    difficulty: float = 0.0,
) -> list[float]:
    """Of the grey values of crops of pairs, where the flow says they are the same.

    Args:
        source: of the pairs.
        draws: number of the pair, and seed; pairs that overlap too little are left out.
        crop_size: side of the crops.
        difficulty: of the transforms.
    """
    found = []
    for index, seed in draws:
        rng = np.random.default_rng(seed)
        raw = source.pair(index, rng, difficulty)
        pair = None if raw is None else crop_pair(raw, crop_size, rng, min_overlap=0.3)
        if pair is None:
            continue
        known = np.isfinite(pair.aflow[..., 0])
        x, y = np.rint(pair.aflow[known]).astype(int).T
        grey = pair.image1[known].mean(axis=-1), pair.image2[y, x].mean(axis=-1)
        found.append(float(np.corrcoef(*grey)[0, 1]))
    return found
