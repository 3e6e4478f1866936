"""A small kapture dataset with exact poses and depth maps: two walls and a floor."""

from __future__ import annotations

from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
from kapture.io.records import depth_map_to_file, get_depth_map_fullpath

from r2d2_kapture.synthetic.dataset import Shot, write_shots
from r2d2_kapture.synthetic.rendering import (
    PinholeCamera,
    Rectangle,
    Scene,
    look_at,
    render_depth,
)
from r2d2_kapture.synthetic.textures import painting, poster

TARGET = np.array([0.0, 3.0, 1.2])


def write_depth_dataset(
    root: Path,
    *,
    images: int = 5,
    image_size: tuple[int, int] = (160, 120),
    half_width: float = 1.0,
) -> Path:
    """Photograph the scene from an arc as wide, with a depth map of each photograph."""
    scene = _scene()
    camera = PinholeCamera(image_size=image_size, focal_length=0.8 * image_size[0])
    shots = [
        Shot(
            name=f"arc à/{number}.png",
            cam_from_world=look_at(np.array([x, -0.3 * abs(x), 1.3]), TARGET),
            exposure=1.0,
        )
        for number, x in enumerate(np.linspace(-half_width, half_width, images))
    ]
    write_shots(root, scene, camera, shots, first_timestamp=0)
    data = kcsv.kapture_from_dir(str(root))
    sensor = data.sensors["camera"]
    data.sensors["depth"] = kapture.Camera(
        sensor.camera_type, sensor.camera_params, name="depth", sensor_type="depth"
    )
    data.records_depth = kapture.RecordsDepth()
    for timestamp, shot in enumerate(shots):
        depth_name = f"{shot.name}.depth"
        data.records_depth[timestamp, "depth"] = depth_name
        depth = render_depth(scene, shot.cam_from_world, camera)
        path = Path(get_depth_map_fullpath(str(root), depth_name))
        path.parent.mkdir(parents=True, exist_ok=True)
        known = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
        depth_map_to_file(str(path), known)
    kcsv.kapture_to_dir(str(root), data)
    return root


def _scene() -> Scene:
    makers = (painting, poster, painting)
    corners = (
        ((-2.6, 4.0, 2.6), (5.2, 0.0, 0.0), (0.0, 0.0, -2.6)),
        ((0.5, 2.9, 1.9), (1.0, 0.3, 0.0), (0.0, 0.0, -1.3)),
        ((-2.6, 4.0, 0.0), (5.2, 0.0, 0.0), (0.0, -3.5, 0.0)),
    )
    return Scene(
        rectangles=tuple(
            Rectangle(
                origin=np.array(origin),
                edge_u=np.array(edge_u),
                edge_v=np.array(edge_v),
                texture=np.asarray(
                    maker(np.random.default_rng(number), (320, 240)), dtype=np.float32
                ),
            )
            for number, (maker, (origin, edge_u, edge_v)) in enumerate(
                zip(makers, corners, strict=True)
            )
        )
    )
