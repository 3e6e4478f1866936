"""Pictures with the statistics of photographs: leaves that fall on each other.

Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001: shapes of any
place and colour, of radii whose density falls with the cube, the last on top.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SUPERSAMPLING = 2
LEAVES_PER_PIXEL = 0.06
SMALLEST_RADIUS = 2.0
LARGEST_NOISE = 8.0


def draw_leaves(count: int, side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Draw pictures: (count, side, side, 3) RGB, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return np.stack([_picture(rng, side) for _ in range(count)])


def _picture(rng: np.random.Generator, side: int) -> npt.NDArray[np.uint8]:
    canvas = Image.new("RGB", (side * SUPERSAMPLING,) * 2, _color(rng))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(LEAVES_PER_PIXEL * side * side)):
        # the share of radii above r falls with its square
        radius = min(SMALLEST_RADIUS / math.sqrt(rng.uniform(1e-6, 1)), side / 2)
        center = rng.uniform(-radius, side + radius, size=2)
        corners = center + _outline(rng) * radius
        pen.polygon([tuple(xy) for xy in corners * SUPERSAMPLING], fill=_color(rng))
    colors = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32)
    colors += rng.normal(0, rng.uniform(0, LARGEST_NOISE), colors.shape)
    return colors.round().clip(0, 255).astype(np.uint8)


def _outline(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """An ellipse, or a triangle or quadrangle within it, in units of its radius."""
    corners = int(rng.choice([3, 4, 16]))
    angles = np.arange(corners) * 2 * math.pi / corners
    x, y = np.cos(angles), np.sin(angles) * rng.uniform(0.3, 1)
    turn = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    """A grey of any brightness with a tint."""
    red, green, blue = np.clip(
        rng.uniform(0, 255) + rng.uniform(-40, 40, size=3), 0, 255
    )
    return int(red), int(green), int(blue)
