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
    render,
)
from r2d2_kapture.training.pairs import pixel_grid
from tests.scenes.rendered import (
    ROOM,
    look_into_the_room,
    points_of_the_room,
    reconstruction_of,
    render_depth,
    sees,
)

SIZE = (200, 150)
FOCAL = 170.0
NAMES = ("a b é.jpg", "c.jpg", "à/d.jpg", "e.jpg")
PLACES = ((-0.8, 0.2), (-0.3, 0.0), (0.2, -0.1), (0.7, -0.2))
"""Where the cameras stand on the floor, in metres."""
POINTS = 200


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
    poses = {n: look_into_the_room(*place) for n, place in zip(names, PLACES)}
    camera = undistorted_camera()
    sfm = root / SFM_FOLDER / scene
    dense = root / DEPTH_FOLDER / scene / f"dense{number}"
    for name, pose in poses.items():
        path = sfm / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(pose)).save(path, quality=95, subsampling=0)
        depth = render_depth(ROOM, pose, camera)
        write_depth((dense / "depths" / name).with_suffix(".h5"), depth)
    points = points_of_the_room(poses, camera, POINTS)
    if tracks is None:
        tracks = {n: np.flatnonzero(sees(p, points, camera)) for n, p in poses.items()}
    reconstruction = reconstruction_of(poses, points, distorted_camera(), tracks)
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
