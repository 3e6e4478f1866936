"""Photographs of a textured plane, and where each of its points is in them, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Texture = Callable[[Array, Array], Array]
"""Grey levels, 0 to 255, of the plane at x and y of any shape."""
Light = Callable[[Array, Array, Array], Array]
"""What the camera sees, of the levels of the plane and x and y of the pixels."""

SIDE, SUPERSAMPLING = 160, 2


def waves(
    seed: int = 0, lengths: tuple[float, float] = (5.0, 60.0), contrast: float = 90.0
) -> Texture:
    """Structure of all sizes between two, in pixels, and of all directions."""
    rng = np.random.default_rng(seed)
    count = 40
    length = np.exp(rng.uniform(*np.log(lengths), count))
    angle, phase = rng.uniform(0, 2 * np.pi, (2, count))
    across, down = np.array([np.cos(angle), np.sin(angle)]) * 2 * np.pi / length
    strength = 1.5 * np.sqrt(2 / count) * (length / 20) ** 0.3

    def texture(x: Array, y: Array) -> Array:
        total = np.zeros_like(x)
        for a, u, v, p in zip(strength, across, down, phase, strict=True):
            total += a * np.cos(u * x + v * y + p)
        return 128 + contrast * np.tanh(total)

    return texture


def checkers(period: float, turned: float = 0.0) -> Texture:
    """Soft-edged fields, dark and bright in turn along both axes."""
    along = np.deg2rad(turned)

    def texture(x: Array, y: Array) -> Array:
        u = np.cos(along) * x + np.sin(along) * y
        v = np.cos(along) * y - np.sin(along) * x
        fields = np.sin(2 * np.pi / period * u) * np.sin(2 * np.pi / period * v)
        return 128 + 100 * np.tanh(2 * fields)

    return texture


def stripes(period: float, turned: float) -> Texture:
    """Soft-edged stripes; nothing says where along one a point is."""
    along = np.deg2rad(turned)

    def texture(x: Array, y: Array) -> Array:
        across = np.cos(along) * x + np.sin(along) * y
        return 128 + 100 * np.tanh(2 * np.sin(2 * np.pi / period * across))

    return texture


def constant(x: Array, y: Array) -> Array:
    return np.full_like(x, 128.0)


def photograph(
    texture: Texture,
    image_from_plane: Array,
    light: Light | None = None,
    *,
    size: tuple[int, int] = (SIDE, SIDE),
    blur: tuple[float, float] = (0.0, 0.0),
    noise: float = 2.0,
    seed: int = 0,
) -> Pixels:
    """(H, W) grey levels of the plane, each pixel the mean over its area.

    Args:
        texture: of the plane.
        image_from_plane: 3 x 3, to pixels from the centre of the first one.
        light: changes the levels before noise and saturation.
        size: (W, H).
        blur: path in pixels of the image during the exposure, around its mean.
        noise: standard deviation in grey levels.
        seed: of the noise.
    """
    columns, rows = np.meshgrid(np.arange(float(size[0])), np.arange(float(size[1])))
    inside = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    times = np.linspace(-0.5, 0.5, 5 if any(blur) else 1)
    offsets = [
        (dx + time * blur[0], dy + time * blur[1])
        for dx in inside
        for dy in inside
        for time in times * any(blur)
    ]
    plane_from_image = np.linalg.inv(image_from_plane)
    levels = np.zeros_like(columns)
    for dx, dy in offsets:
        on_plane = moved_by(
            plane_from_image, np.stack([columns + dx, rows + dy], axis=-1)
        )
        levels += texture(on_plane[..., 0], on_plane[..., 1]) / len(offsets)
    if light is not None:
        levels = light(levels, columns, rows)
    levels += np.random.default_rng(seed).normal(0, noise, levels.shape)
    pixels: Pixels = np.rint(levels.clip(0, 255)).astype(np.uint8)
    return pixels


def moved_by(homography: Array, points: Array) -> Array:
    """(..., 2) points, mapped by a 3 x 3 homography."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def affinities_of(homography: Array, points: Array) -> Array:
    """(N, 2, 2) derivatives of a homography at (N, 2) points."""
    depth = points @ homography[2, :2] + homography[2, 2]
    mapped = moved_by(homography, points)
    slopes = homography[:2, :2] - mapped[:, :, None] * homography[2, :2]
    return np.asarray(slopes / depth[:, None, None])


def shifted(dx: float, dy: float) -> Array:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def about_the_middle(transform: Sequence[Sequence[float]], side: int = SIDE) -> Array:
    """The homography that a 2 x 2 or 3 x 3 matrix is when the middle is the origin."""
    matrix = np.eye(3)
    given = np.asarray(transform, float)
    matrix[: len(given), : len(given)] = given
    middle = (side - 1) / 2
    return shifted(middle + 0.3, middle - 0.4) @ matrix @ shifted(-middle, -middle)


def turned(degrees: float) -> Array:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return about_the_middle([[c, -s], [s, c]])


def zoomed(factor: float) -> Array:
    return about_the_middle([[factor, 0], [0, factor]])


def tilted(degrees: float, focal: float = 300.0) -> Array:
    """The view of a camera that moved around the middle of the plane."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return about_the_middle([[c, 0, 0], [0, 1, 0], [s / focal, 0, 1]])
