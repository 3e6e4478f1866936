"""A ray-caster: what a pinhole camera sees of a scene of textured rectangles.

World: metres, z up. Camera: x right, y down, z forward. Pixels: (0, 0) is the centre of
the top-left one. ``cam_from_world`` is a (4, 4) float64 rigid transform.

A rectangle X = origin + s * edge_u + t * edge_v that is seen at pixel p with depth z,
all in camera coordinates, satisfies X = z K^-1 p, hence

    [s, t, 1] / z = [edge_u edge_v origin]^-1 K^-1 p

so inverse depth, s over depth and t over depth are affine in the pixel: visibility
needs no division, and a texture is looked up through one homography.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from r2d2_kapture.coordinates import image_from_level, kapture_from_colmap

ByteImage = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

SUPERSAMPLING = 2


@dataclass(frozen=True, kw_only=True)
class PinholeCamera:
    """A camera without distortion whose principal point is the middle of its image.

    Attributes:
        image_size: (W, H) in pixels.
        focal_length: in pixels.
    """

    image_size: tuple[int, int]
    focal_length: float

    @property
    def principal_point(self) -> tuple[float, float]:
        """((W - 1) / 2, (H - 1) / 2), counted from the centre of the first pixel."""
        width, height = self.image_size
        return (width - 1) / 2, (height - 1) / 2

    @property
    def intrinsics(self) -> DoubleArray:
        """(3, 3) matrix that takes camera coordinates to homogeneous pixels."""
        cx, cy = self.principal_point
        f = self.focal_length
        return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rectangle:
    """A textured planar rectangle, visible from its front only.

    Seen from the front, ``edge_u`` points right along the rows of the texture and
    ``edge_v`` points down along its columns.

    Attributes:
        origin: (3,) float64, the corner at the top left of the texture, metres.
        edge_u: (3,) float64, from the top-left corner to the top-right one, metres.
        edge_v: (3,) float64, from the top-left corner to the bottom-left one, metres.
        texture: (h, w, 3) float32 RGB, 0..1, at least 2 texels on each side.
    """

    origin: DoubleArray
    edge_u: DoubleArray
    edge_v: DoubleArray
    texture: FloatArray

    @cached_property
    def mipmaps(self) -> tuple[FloatArray, ...]:
        """The texture and its successive halvings, down to a few texels."""
        levels = [self.texture]
        while min(levels[-1].shape[:2]) >= 8:
            levels.append(halved(levels[-1]))
        return tuple(levels)

    @property
    def corners(self) -> DoubleArray:
        """(4, 3) world coordinates in metres."""
        corners = [self.origin, self.origin + self.edge_u, self.origin + self.edge_v]
        return np.array([*corners, corners[1] + self.edge_v])


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What there is to see: rectangles that hide one another by depth."""

    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Visibility:
    """The rectangle seen at every sample of a raster.

    Attributes:
        index: (h, w) int16, position in the scene; -1 where nothing is seen.
        inverse_depth: (h, w) float32, 1 / metres along the camera's z axis; 0 where
            nothing is seen.
    """

    index: npt.NDArray[np.int16]
    inverse_depth: FloatArray


def halved(texture: FloatArray) -> FloatArray:
    """Average a (h, w, 3) texture over cells to (ceil(h / 2), ceil(w / 2), 3)."""
    height, width = texture.shape[:2]
    size = ((width + 1) // 2, (height + 1) // 2)
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(texture[..., channel])).resize(
                size, Image.Resampling.BOX
            )
        )
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)


def rectangle_from_pixel(
    rectangle: Rectangle, cam_from_world: DoubleArray, camera: PinholeCamera
) -> DoubleArray | None:
    """The homography that takes a pixel to [s, t, 1] / depth of a rectangle.

    Args:
        rectangle: what is seen.
        cam_from_world: (4, 4) rigid transform.
        camera: who sees it.

    Returns:
        (3, 3) float64, or None for a camera behind the rectangle or in its plane.
    """
    rotation, translation = cam_from_world[:3, :3], cam_from_world[:3, 3]
    origin = rotation @ rectangle.origin + translation
    cam_from_rectangle = np.column_stack(
        [rotation @ rectangle.edge_u, rotation @ rectangle.edge_v, origin]
    )
    if np.linalg.det(cam_from_rectangle) <= 1e-9:
        return None
    inverse = np.linalg.inv(camera.intrinsics @ cam_from_rectangle)
    return inverse.astype(np.float64)


def pixel_window(
    rectangle: Rectangle, cam_from_world: DoubleArray, camera: PinholeCamera
) -> tuple[float, float, float, float]:
    """Bounds (left, top, right, bottom) in pixels of what may show a rectangle."""
    corners = rectangle.corners @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    if corners[:, 2].min() < 1e-3:
        return -np.inf, -np.inf, np.inf, np.inf
    homogeneous = corners @ camera.intrinsics.T
    pixels = homogeneous[:, :2] / homogeneous[:, 2:]
    # a pixel more, so that rounding cannot open a seam between two rectangles
    (left, top), (right, bottom) = pixels.min(axis=0) - 1, pixels.max(axis=0) + 1
    return float(left), float(top), float(right), float(bottom)


def sample_grid(
    camera: PinholeCamera, supersampling: int
) -> tuple[DoubleArray, DoubleArray]:
    """Pixel coordinates x (W * n,) and y (H * n,) of n x n samples a pixel."""
    width, height = camera.image_size
    columns, rows = (
        image_from_level(
            np.arange(size * supersampling, dtype=np.float64),
            size * supersampling,
            size,
            "corrected",
        )
        for size in (width, height)
    )
    return columns, rows


def visible_surfaces(
    homographies: list[DoubleArray | None],
    windows: list[tuple[float, float, float, float]],
    x: DoubleArray,
    y: DoubleArray,
) -> Visibility:
    """Fill the z-buffer of the samples at columns ``x`` and rows ``y``, in pixels."""
    index = np.full((len(y), len(x)), -1, dtype=np.int16)
    nearest = np.zeros((len(y), len(x)), dtype=np.float32)
    for number, (homography, window) in enumerate(zip(homographies, windows)):
        if homography is None:
            continue
        left, right = np.searchsorted(x, window[0::2])
        top, bottom = np.searchsorted(y, window[1::2])
        view = np.s_[top:bottom, left:right]
        s, t, inverse_depth = affine_planes(homography, x[left:right], y[top:bottom])
        # rectangles reach a hair past their edges, so that no seam lets a ray through
        margin = 1e-5 * inverse_depth
        inside = (s >= -margin) & (t >= -margin) & (inverse_depth > nearest[view])
        inside &= (s <= inverse_depth + margin) & (t <= inverse_depth + margin)
        index[view][inside] = number
        nearest[view][inside] = inverse_depth[inside]
    return Visibility(index=index, inverse_depth=nearest)


def affine_planes(
    homography: DoubleArray, x: DoubleArray, y: DoubleArray
) -> Iterator[FloatArray]:
    """Each row of ``homography`` applied to the grid of x and y: (h, w) float32."""
    for a, b, c in homography:
        row = (a * x).astype(np.float32)
        column = (b * y + c).astype(np.float32)
        yield row[None, :] + column[:, None]


def look_up(level: FloatArray, s: FloatArray, t: FloatArray) -> FloatArray:
    """Bilinear colours (N, 3) of a (h, w, 3) texture at (N,) positions in 0..1."""
    height, width = level.shape[:2]
    x = np.clip(kapture_from_colmap(s * width), 0, width - 1)
    y = np.clip(kapture_from_colmap(t * height), 0, height - 1)
    left = np.minimum(x.astype(np.int32), width - 2)
    top = np.minimum(y.astype(np.int32), height - 2)
    right_weight = (x - left).astype(np.float32)[:, None]
    bottom_weight = (y - top).astype(np.float32)[:, None]
    texels = level.reshape(-1, 3)
    corner = top * width + left
    upper: FloatArray = texels[corner]
    upper += right_weight * (texels[corner + 1] - upper)
    lower = texels[corner + width]
    lower += right_weight * (texels[corner + width + 1] - lower)
    upper += bottom_weight * (lower - upper)
    return upper


def filtered_look_up(
    rectangle: Rectangle, s: FloatArray, t: FloatArray, footprint: FloatArray
) -> FloatArray:
    """Colours (N, 3) at (N,) positions in 0..1, blended between two mip levels.

    ``footprint`` (N,) is the side, in texels, of the square that a sample averages.
    """
    mipmaps = rectangle.mipmaps
    level = np.clip(np.log2(np.maximum(footprint, 1)), 0, len(mipmaps) - 1)
    colors = np.zeros((len(s), 3), dtype=np.float32)
    for number, texture in enumerate(mipmaps):
        weight = 1 - np.abs(level - number)
        chosen = np.flatnonzero(weight > 0)
        if len(chosen):
            looked_up = look_up(texture, s[chosen], t[chosen])
            colors[chosen] += weight[chosen, None] * looked_up
    return colors


def project_scene(
    scene: Scene, cam_from_world: DoubleArray, camera: PinholeCamera
) -> tuple[list[DoubleArray | None], list[tuple[float, float, float, float]]]:
    """Homographies and pixel windows of every rectangle of a scene, in its order."""
    homographies = [
        rectangle_from_pixel(rectangle, cam_from_world, camera)
        for rectangle in scene.rectangles
    ]
    windows = [
        pixel_window(rectangle, cam_from_world, camera)
        for rectangle in scene.rectangles
    ]
    return homographies, windows


def render(
    scene: Scene,
    cam_from_world: DoubleArray,
    camera: PinholeCamera,
    *,
    exposure: float = 1.0,
) -> ByteImage:
    """Photograph a scene.

    Args:
        scene: what is seen.
        cam_from_world: (4, 4) float64 rigid transform, metres.
        camera: image size and focal length in pixels.
        exposure: gain on every colour.

    Returns:
        (H, W, 3) uint8 RGB; black where nothing is seen.
    """
    homographies, windows = project_scene(scene, cam_from_world, camera)
    x, y = sample_grid(camera, SUPERSAMPLING)
    seen = visible_surfaces(homographies, windows, x, y)
    colors = np.zeros((seen.index.size, 3), dtype=np.float32)
    flat_index, flat_inverse_depth = seen.index.ravel(), seen.inverse_depth.ravel()
    for number, rectangle in enumerate(scene.rectangles):
        homography = homographies[number]
        samples = np.flatnonzero(flat_index == number)
        if homography is None or len(samples) == 0:
            continue
        rows, columns = np.divmod(samples, len(x))
        pixels = np.stack([x[columns], y[rows], np.ones(len(samples))])
        inverse_depth = flat_inverse_depth[samples]
        s, t = (homography[:2] @ pixels).astype(np.float32) / inverse_depth
        # the Jacobian of a homography H at depth z has determinant det(H) z^3
        texels = rectangle.texture.shape[0] * rectangle.texture.shape[1]
        area = float(np.linalg.det(homography)) * texels / inverse_depth**3
        footprint = np.sqrt(area) / SUPERSAMPLING
        colors[samples] = filtered_look_up(rectangle, s, t, footprint)
    width, height = camera.image_size
    blocks = colors.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3)
    image = blocks.mean(axis=(1, 3)) * exposure
    photograph: ByteImage = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return photograph


def look_at(
    position: DoubleArray, target: DoubleArray, roll: float = 0.0
) -> DoubleArray:
    """The (4, 4) cam_from_world of a camera at ``position`` that looks at ``target``.

    Both are (3,) in metres and not one above the other; ``roll`` turns the camera about
    its z axis, in radians.
    """
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    rotation = np.stack([cos * right + sin * down, cos * down - sin * right, forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation
    cam_from_world[:3, 3] = -rotation @ position
    return cam_from_world
