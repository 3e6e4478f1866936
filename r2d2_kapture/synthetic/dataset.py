"""Writes photographs of the demonstration room as kapture datasets with exact poses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
from kapture.io.records import get_image_fullpath
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from r2d2_kapture.config.checks import require
from r2d2_kapture.io.kapture.pixel_origins import write_origin
from r2d2_kapture.synthetic.rendering import (
    ByteImage,
    PinholeCamera,
    Scene,
    look_at,
    render,
)
from r2d2_kapture.synthetic.room import textured_room

DoubleArray = npt.NDArray[np.float64]

SENSOR_ID = "camera"
JPEG_QUALITY = 95
ARC_TARGET = (0.0, 1.6, 1.2)
ARC_RADIUS = 3.9
ARC_HALF_ANGLE = np.radians(42.0)


@dataclass(frozen=True, kw_only=True)
class RoomDataset:
    """Where the two kapture datasets of a room are, and how many images they hold."""

    mapping: Path
    query: Path
    mapping_images: int
    query_images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One photograph to take.

    Attributes:
        name: of the image.
        cam_from_world: (4, 4) float64 rigid transform, metres.
        exposure: gain on every colour.
        blur: standard deviation of a Gaussian, pixels.
        noise: standard deviation of grey levels of the sensor, of 255.
    """

    name: str
    cam_from_world: DoubleArray
    exposure: float
    blur: float = 0.0
    noise: float = 0.0


def arc_pose(
    rng: np.random.Generator, angle: float, radius: float, height: float, wobble: float
) -> DoubleArray:
    """Look from an arc around the middle of the scene towards it.

    Args:
        rng: source of the deviations.
        angle: place on the arc, radians, 0 in front of the gallery wall.
        radius: distance to the axis of the arc, metres.
        height: of the camera above the floor, metres.
        wobble: standard deviation of what the camera looks at, metres.

    Returns:
        (4, 4) cam_from_world, metres.
    """
    target = np.array(ARC_TARGET)
    position = target + radius * np.array([np.sin(angle), -np.cos(angle), 0.0])
    position[2] = height
    aim = target + wobble * rng.standard_normal(3)
    return look_at(position, aim, roll=0.1 * wobble * rng.standard_normal())


def mapping_shots(seed: int, count: int) -> list[Shot]:
    """Evenly spaced on the arc, at two heights in turn."""
    rng = np.random.default_rng([seed, 0])
    return [
        Shot(
            name=f"mapping/{number:04d}.jpg",
            cam_from_world=arc_pose(
                rng, angle, ARC_RADIUS, 1.65 if number % 2 else 1.35, wobble=0.08
            ),
            exposure=rng.uniform(0.95, 1.05),
        )
        for number, angle in enumerate(
            np.linspace(-ARC_HALF_ANGLE, ARC_HALF_ANGLE, count)
        )
    ]


def query_shots(seed: int, count: int) -> list[Shot]:
    """Between the mapping images, in front of their arc and behind it in turn."""
    rng = np.random.default_rng([seed, 1])
    edges = np.linspace(-ARC_HALF_ANGLE, ARC_HALF_ANGLE, count + 1)
    return [
        Shot(
            name=f"query/{number:04d}.jpg",
            cam_from_world=arc_pose(
                rng,
                rng.uniform(left, right),
                ARC_RADIUS + rng.uniform(0.2, 0.5) * (-1 if number % 2 == 0 else 1),
                rng.uniform(1.2, 1.8),
                wobble=0.2,
            ),
            exposure=rng.uniform(0.85, 1.15),
        )
        for number, (left, right) in enumerate(zip(edges, edges[1:]))
    ]


def kapture_pose(cam_from_world: DoubleArray) -> kapture.PoseTransform:
    """The (4, 4) transform as kapture keeps it: world to camera."""
    x, y, z, w = Rotation.from_matrix(cam_from_world[:3, :3]).as_quat().tolist()
    return kapture.PoseTransform(r=[w, x, y, z], t=cam_from_world[:3, 3].tolist())


def kapture_camera(camera: PinholeCamera) -> kapture.Camera:
    """The camera as kapture keeps it; its principal point counts from pixel centres."""
    f = camera.focal_length
    parameters = [*camera.image_size, f, f, *camera.principal_point]
    return kapture.Camera(kapture.CameraType.PINHOLE, parameters, name=SENSOR_ID)


def taken(image: ByteImage, shot: Shot, seed: int) -> ByteImage:
    """A rendered image, (H, W, 3), with the blur and the noise of a shot."""
    if shot.blur == shot.noise == 0:
        return image
    blurred = gaussian_filter(image.astype(np.float32), (shot.blur, shot.blur, 0))
    rng = np.random.default_rng([seed, 2])
    noisy = blurred + shot.noise * rng.standard_normal(image.shape, dtype=np.float32)
    photograph: ByteImage = np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)
    return photograph


def write_shots(
    root: Path,
    scene: Scene,
    camera: PinholeCamera,
    shots: list[Shot],
    first_timestamp: int,
) -> None:
    """Photograph a scene into the kapture dataset at ``root``, one timestamp a shot."""
    trajectories = kapture.Trajectories()
    records = kapture.RecordsCamera()
    for timestamp, shot in enumerate(shots, first_timestamp):
        trajectories[timestamp, SENSOR_ID] = kapture_pose(shot.cam_from_world)
        records[timestamp, SENSOR_ID] = shot.name
        path = Path(get_image_fullpath(str(root), shot.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        image = render(scene, shot.cam_from_world, camera, exposure=shot.exposure)
        image = taken(image, shot, seed=timestamp)
        Image.fromarray(image).save(path, quality=JPEG_QUALITY, subsampling=0)
    sensors = kapture.Sensors()
    sensors[SENSOR_ID] = kapture_camera(camera)
    dataset = kapture.Kapture(
        sensors=sensors, trajectories=trajectories, records_camera=records
    )
    kcsv.kapture_to_dir(str(root), dataset)
    write_origin(root / "sensors", "center")


def write_room_dataset(
    root: Path,
    *,
    mapping_images: int = 12,
    query_images: int = 4,
    image_size: tuple[int, int] = (640, 480),
    seed: int = 0,
) -> RoomDataset:
    """Write kapture 1.1 datasets ``root/mapping`` and ``root/query`` of one room.

    The mapping images lie on an arc in front of the gallery wall, the query images
    between them and off the arc. All have one PINHOLE camera, whose principal point
    ((W - 1) / 2, (H - 1) / 2) counts from the centre of the first pixel, and exact
    world-to-camera poses. Image names and timestamps of the two do not collide. The
    same arguments write the same files.

    Args:
        root: folder to write in; made where it is missing.
        mapping_images: at least 2.
        query_images: at least 1.
        image_size: (W, H) in pixels.
        seed: of the textures, the deviations of the poses and the exposures.

    Returns:
        The two datasets and their image counts.

    Raises:
        ConfigError: a count or size is too small.
        OSError: ``root`` cannot be written.
    """
    require(mapping_images >= 2, f"mapping_images: found {mapping_images}, expected 2+")
    require(query_images >= 1, f"query_images: found {query_images}, expected 1+")
    require(min(image_size) >= 16, f"image_size: found {image_size}, expected 16+")
    scene = textured_room(seed)
    camera = PinholeCamera(image_size=image_size, focal_length=0.75 * image_size[0])
    dataset = RoomDataset(
        mapping=root / "mapping",
        query=root / "query",
        mapping_images=mapping_images,
        query_images=query_images,
    )
    mapping = mapping_shots(seed, mapping_images)
    query = query_shots(seed, query_images)
    write_shots(dataset.mapping, scene, camera, mapping, first_timestamp=0)
    write_shots(dataset.query, scene, camera, query, first_timestamp=mapping_images)
    return dataset
