"""Small scenes with exact poses and depth, laid out as MegaDepth is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pycolmap
from PIL import Image
from scipy.ndimage import map_coordinates

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.stages.megadepth.layout import (
    DEPTH_FOLDER,
    SFM_FOLDER,
    SceneModel,
    find_models,
)
from r2d2_kapture.synthetic.rendering import (
    PinholeCamera,
    Rectangle,
    Scene,
    look_at,
    render,
    render_depth,
)
from r2d2_kapture.training.pairs import pixel_grid

SIZE = (200, 150)
FOCAL = 170.0
NAMES = ("a b é.jpg", "c.jpg", "à/d.jpg", "e.jpg")
PLACES = ((-0.8, 0.2), (-0.3, 0.0), (0.2, -0.1), (0.7, -0.2))
"""Where the cameras stand on the floor, in metres."""
POINTS = 200


def square(origin, edge_u, edge_v, seed: int) -> Rectangle:
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


def distorted_camera(camera_id: int = 1) -> pycolmap.Camera:
    return pycolmap.Camera(
        camera_id=camera_id,
        model="SIMPLE_RADIAL",
        width=SIZE[0],
        height=SIZE[1],
        params=[FOCAL, SIZE[0] / 2, SIZE[1] / 2, -0.12],
    )


def undistorted_camera() -> PinholeCamera:
    """What COLMAP makes of it: the same focal length, the middle as principal point."""
    options = pycolmap.UndistortCameraOptions()
    camera = pycolmap.undistort_camera(options, distorted_camera())
    return PinholeCamera(image_size=(camera.width, camera.height), focal_length=FOCAL)


@dataclass(frozen=True, kw_only=True, eq=False)
class WrittenScene:
    """Where a scene is, and the truth about it."""

    model: SceneModel
    poses: Mapping[str, np.ndarray]
    points: np.ndarray

    def depth(self, name: str) -> np.ndarray:
        """Exact, of the undistorted view."""
        return render_depth(ROOM, self.poses[name], undistorted_camera())


def write_scene(
    root: Path,
    scene: str = "0000",
    number: int = 0,
    *,
    names: Sequence[str] = NAMES,
    tracks: Mapping[str, np.ndarray] | None = None,
) -> WrittenScene:
    """Photograph the room into ``root/phoenix`` and ``root/MegaDepth_v1_SfM``.

    Args:
        root: of both downloads.
        scene: its name.
        number: of the model.
        names: of the images, one for each of the first places.
        tracks: rows of the points that each image observes; by default all that it
            sees.
    """
    poses = {
        name: look_at(np.array([x, y, 1.3]), np.array([0.2, 3.0, 1.0]))
        for name, (x, y) in zip(names, PLACES)
    }
    sfm = root / SFM_FOLDER / scene
    dense = root / DEPTH_FOLDER / scene / f"dense{number}"
    for name, pose in poses.items():
        path = sfm / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(pose)).save(path, quality=95, subsampling=0)
        depth = render_depth(ROOM, pose, undistorted_camera())
        write_depth((dense / "depths" / name).with_suffix(".h5"), depth)
    points = points_of_the_room(list(poses.values()))
    reconstruction = reconstruction_of(poses, points, tracks)
    folder = sfm / "sparse" / "manhattan" / str(number)
    folder.mkdir(parents=True)
    reconstruction.write(str(folder))
    for part in ("rigs", "frames"):  # the published models are of COLMAP 3
        (folder / f"{part}.bin").unlink()
    models, _ = find_models(
        root / DEPTH_FOLDER, root / SFM_FOLDER, root / "out", [scene]
    )
    model = next(model for model in models if model.number == number)
    return WrittenScene(model=model, poses=poses, points=points)


def write_depth(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["depth"] = np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def photograph(pose: np.ndarray) -> np.ndarray:
    """What the distorted camera sees: a wider view, looked up along its rays."""
    wide = PinholeCamera(image_size=(320, 260), focal_length=FOCAL)
    view = render(ROOM, pose, wide)
    pixels = pixel_grid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = distorted_camera().cam_from_img(colmap_from_kapture(pixels))
    x, y = (rays * FOCAL + np.array(wide.principal_point)).T
    channels = [map_coordinates(view[..., c], (y, x), order=1) for c in range(3)]
    return np.stack(channels, axis=-1).reshape(SIZE[1], SIZE[0], 3)


def points_of_the_room(poses: Sequence[np.ndarray]) -> np.ndarray:
    """(POINTS, 3) random points of what the views see, in world coordinates."""
    rng = np.random.default_rng(0)
    camera = undistorted_camera()
    width, height = camera.image_size
    points = []
    for pose in poses:
        depth = render_depth(ROOM, pose, camera)
        count = POINTS // len(poses)
        x, y = rng.integers(0, width, count), rng.integers(0, height, count)
        pixels = np.stack([x, y, np.ones(count)])
        there = np.linalg.inv(camera.intrinsics) @ pixels * depth[y, x]
        points.append((there.T - pose[:3, 3]) @ pose[:3, :3])
    return np.concatenate(points)


def sees(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) whether a view shows points, and nothing hides them."""
    camera = undistorted_camera()
    there = points @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = (there @ camera.intrinsics.T).T
    width, height = camera.image_size
    column, row = np.rint(x / z).astype(int), np.rint(y / z).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0)
    depth = render_depth(ROOM, pose, camera)
    found = depth[np.where(inside, row, 0), np.where(inside, column, 0)]
    return inside & (np.abs(found / z - 1) < 0.02)


def reconstruction_of(
    poses: Mapping[str, np.ndarray],
    points: np.ndarray,
    tracks: Mapping[str, np.ndarray] | None = None,
) -> pycolmap.Reconstruction:
    """The model of the distorted images; each keypoint sees a point.

    The tracks are rows of the points, by image.
    """
    model = pycolmap.Reconstruction()
    camera = distorted_camera()
    model.add_camera_with_trivial_rig(camera)
    elements: list[list[tuple[int, int]]] = [[] for _ in points]
    for image_id, (name, pose) in enumerate(poses.items(), 1):
        rows = np.flatnonzero(sees(pose, points)) if tracks is None else tracks[name]
        there = points[rows] @ pose[:3, :3].T + pose[:3, 3]
        keypoints = camera.img_from_cam(there) if len(rows) else []
        image = pycolmap.Image(name=name, camera_id=1, image_id=image_id)
        image.points2D = pycolmap.Point2DList(
            [pycolmap.Point2D(keypoint) for keypoint in keypoints]
        )
        rigid = pycolmap.Rigid3d(pose[:3])
        model.add_image_with_trivial_frame(image, rigid)
        for keypoint, row in enumerate(rows):
            elements[row].append((image_id, keypoint))
    for point, seen in zip(points, elements):
        if seen:
            track = pycolmap.Track()
            for image_id, keypoint in seen:
                track.add_element(image_id, keypoint)
            model.add_point3D(point, track, np.zeros(3, np.uint8))
    return model
