"""Models in the format of Bundler: radial cameras, poses and points with their tracks.

``bundle.out`` counts image positions from the principal point, x to the right and y up,
and its cameras look along the negative z axis. ``bundle.out.list.txt`` names the images
in their order. Source: github.com/snavely/bundler_sfm, section Output format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.outputs.atomic import write_text_atomic

BUNDLE_NAME = "bundle.out"
LIST_NAME = "bundle.out.list.txt"
RADIAL = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL")
"""Models of at most one focal length and two radial coefficients."""
UP_AND_BACKWARD = np.array([1.0, -1.0, -1.0])
FOCAL_TOLERANCE = 1e-6
"""Relative difference of focal lengths of x and y that counts as none."""


def check_radial(cameras: Iterable[pycolmap.Camera], place: str) -> None:
    """Refuse cameras that Bundler cannot describe.

    Raises:
        DatasetError: naming the camera and its model.
    """
    for camera in cameras:
        fx, fy = camera.focal_length_x, camera.focal_length_y
        what = f"{place}: camera {camera.camera_id}: found "
        way_out = "; export --to colmap, or undistort the images"
        if camera.model_name not in RADIAL:
            raise DatasetError(
                f"{what}model {camera.model_name}, expected one of "
                f"{', '.join(RADIAL)}, which Bundler has{way_out}"
            )
        if abs(fx - fy) > FOCAL_TOLERANCE * fx:
            raise DatasetError(
                f"{what}focal lengths {fx:g} and {fy:g}, expected equal ones, of which "
                f"Bundler has one{way_out}"
            )


def write_bundler(folder: Path, model: pycolmap.Reconstruction) -> None:
    """Write the registered images of a model, in order of names, and its points.

    Args:
        folder: to write in.
        model: of cameras that ``check_radial`` has passed.

    Raises:
        OutputError: the file system refused.
    """
    images = sorted(
        map(model.image, model.reg_image_ids()), key=lambda image: str(image.name)
    )
    places = {image.image_id: place for place, image in enumerate(images)}
    lines = ["# Bundle file v0.3", f"{len(images)} {len(model.points3D)}"]
    for image in images:
        lines += _camera_lines(image)
    for _, point in sorted(model.points3D.items()):
        lines += [_row(point.xyz), " ".join(map(str, point.color.tolist()))]
        lines.append(" ".join(_track(model, point, places)))
    write_text_atomic(folder / BUNDLE_NAME, "\n".join(lines) + "\n")
    write_text_atomic(folder / LIST_NAME, "".join(f"{i.name}\n" for i in images))


def _camera_lines(image: pycolmap.Image) -> list[str]:
    camera = image.camera
    extra = [camera.params[i] for i in camera.extra_params_idxs()]
    k1, k2 = (*extra, 0.0, 0.0)[:2]
    cam_from_world = image.cam_from_world().matrix() * UP_AND_BACKWARD[:, None]
    rotation, translation = cam_from_world[:, :3], cam_from_world[:, 3]
    rows = ([camera.focal_length_x, k1, k2], *rotation, translation)
    return [_row(row) for row in rows]


def _track(
    model: pycolmap.Reconstruction, point: pycolmap.Point3D, places: dict[int, int]
) -> Iterator[str]:
    yield str(point.track.length())
    for element in point.track.elements:
        image = model.image(element.image_id)
        x, y = image.point2D(element.point2D_idx).xy
        camera = image.camera
        yield f"{places[element.image_id]} {element.point2D_idx}"
        yield _row([x - camera.principal_point_x, camera.principal_point_y - y])


def _row(values: Iterable[float] | npt.NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in values)
