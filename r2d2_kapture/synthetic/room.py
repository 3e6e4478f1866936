"""The demonstration room: walls painted in six ways, crates and poster boards.

World: metres, z up; the room is centred at x = y = 0 and its floor is at z = 0.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.synthetic import textures
from r2d2_kapture.synthetic.rendering import Rectangle, Scene
from r2d2_kapture.synthetic.textures import TextureMaker

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

ROOM_SIZE = (8.0, 6.0, 3.0)
TEXELS_PER_METRE = 220
FLOOR_FACE = 4


@dataclass(frozen=True)
class Furniture:
    """An upright box that stands in the room.

    Attributes:
        base: (x, y, z) of the centre of its bottom, metres.
        size: lengths along x, y and z before the turn, metres.
        yaw: turn about the vertical, radians.
        make_texture: what its faces show.
    """

    base: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    make_texture: TextureMaker


def room_furniture() -> tuple[Furniture, ...]:
    """What stands in the room and hides parts of its walls."""
    crate, poster = textures.crate, textures.poster
    return (
        Furniture((-1.7, 1.6, 0.0), (0.9, 0.9, 0.9), 0.5, crate),
        Furniture((-1.65, 1.65, 0.9), (0.6, 0.6, 0.55), 0.1, crate),
        Furniture((0.3, 2.0, 0.0), (0.7, 0.5, 0.7), -0.2, crate),
        Furniture((1.6, 1.2, 0.0), (1.0, 0.12, 1.5), -0.45, poster),
        Furniture((-3.1, 0.3, 0.0), (0.12, 0.9, 1.7), -0.25, poster),
        Furniture((2.9, 2.3, 0.0), (0.8, 0.8, 1.2), 0.3, textures.painting),
    )


def textured_rectangle(
    make_texture: TextureMaker,
    rng: np.random.Generator,
    origin: DoubleArray,
    edge_u: DoubleArray,
    edge_v: DoubleArray,
    brightness: float = 1.0,
) -> Rectangle:
    """A rectangle painted at TEXELS_PER_METRE and lit by ``brightness``."""
    width, height = (
        max(16, round(float(np.linalg.norm(edge)) * TEXELS_PER_METRE))
        for edge in (edge_u, edge_v)
    )
    texture = brightness * make_texture(rng, (width, height))
    return Rectangle(
        origin=origin,
        edge_u=edge_u,
        edge_v=edge_v,
        texture=texture.astype(np.float32),
    )


def box_faces(
    center: DoubleArray, size: DoubleArray, yaw: float, inward: bool
) -> list[tuple[DoubleArray, DoubleArray, DoubleArray]]:
    """Origin, edge_u and edge_v of the faces of a box that stands upright.

    Args:
        center: (3,) metres.
        size: (3,) lengths along x, y and z before the turn, metres.
        yaw: turn about the vertical, radians.
        inward: whether the faces are seen from inside the box, as the walls of a room.

    Returns:
        Six faces: four sides in the order +y, +x, -y, -x before the turn, then the
        bottom and the top.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    half_x = np.array([cos, sin, 0.0]) * size[0] / 2
    half_y = np.array([-sin, cos, 0.0]) * size[1] / 2
    half_z = np.array([0.0, 0.0, 1.0]) * size[2] / 2
    # (towards the face, right of it as seen from inside, down)
    frames = [
        (half_y, half_x, -half_z),
        (half_x, -half_y, -half_z),
        (-half_y, -half_x, -half_z),
        (-half_x, half_y, -half_z),
        (-half_z, half_x, -half_y),
        (half_z, half_x, half_y),
    ]
    side = 1.0 if inward else -1.0
    return [
        (center + out - side * right - down, 2 * side * right, 2 * down)
        for out, right, down in frames
    ]


def wall_light(rectangle: Rectangle) -> FloatArray:
    """Light (h, w) on a wall: a little less near its edges, as in any room."""
    height, width = rectangle.texture.shape[:2]
    reach = 0.3 * TEXELS_PER_METRE
    columns, rows = (
        1 - 0.35 * np.exp(-np.minimum(np.arange(n), np.arange(n)[::-1]) / reach)
        for n in (width, height)
    )
    return np.outer(rows, columns).astype(np.float32)


def contact_shadow(floor: Rectangle, item: Furniture) -> FloatArray:
    """Light (h, w) that an item leaves on the floor around its base."""
    height, width = floor.texture.shape[:2]
    s, t = np.linspace(0, 1, width), np.linspace(0, 1, height)
    x = floor.origin[0] + s * floor.edge_u[0] - item.base[0]
    y = (floor.origin[1] + t * floor.edge_v[1] - item.base[1])[:, None]
    cos, sin = np.cos(item.yaw), np.sin(item.yaw)
    beyond_x = np.maximum(np.abs(cos * x + sin * y) - item.size[0] / 2, 0)
    beyond_y = np.maximum(np.abs(cos * y - sin * x) - item.size[1] / 2, 0)
    darkness = np.exp(-np.hypot(beyond_x, beyond_y) / 0.15)
    light: FloatArray = (1 - 0.6 * darkness).astype(np.float32)
    return light


def lit(rectangle: Rectangle, light: FloatArray) -> Rectangle:
    """The rectangle with its texture multiplied by ``light`` (h, w)."""
    return dataclasses.replace(rectangle, texture=rectangle.texture * light[..., None])


def room_walls(seed: int) -> list[Rectangle]:
    """The six inner faces of the room, no two painted alike: sides, floor, ceiling."""
    makers = (
        textures.gallery,
        textures.bricks,
        textures.bookshelf,
        textures.bookshelf,
        textures.planks,
        textures.ceiling,
    )
    middle = np.array([0.0, 0.0, ROOM_SIZE[2] / 2])
    faces = box_faces(middle, np.array(ROOM_SIZE), 0.0, inward=True)
    walls = []
    for number, (make_texture, face) in enumerate(zip(makers, faces)):
        rng = np.random.default_rng([seed, number])
        wall = textured_rectangle(make_texture, rng, *face)
        walls.append(lit(wall, wall_light(wall)))
    return walls


def furniture_faces(item: Furniture, rng: np.random.Generator) -> list[Rectangle]:
    """The six outer faces of an item, as bright as the light from above makes them."""
    center = np.array(item.base) + [0.0, 0.0, item.size[2] / 2]
    faces = box_faces(center, np.array(item.size), item.yaw, inward=False)
    brightness = (1.0, 0.85, 1.0, 0.85, 0.5, 1.1)
    return [
        textured_rectangle(item.make_texture, rng, *face, light)
        for face, light in zip(faces, brightness)
    ]


def textured_room(seed: int = 0) -> Scene:
    """Build the room: x in -4..4, y in -3..3, z in 0..3 metres, with its furniture.

    The gallery wall is at y = 3. The same seed paints the same room.
    """
    walls = room_walls(seed)
    rectangles: list[Rectangle] = []
    for number, item in enumerate(room_furniture()):
        rng = np.random.default_rng([seed, len(walls) + number])
        rectangles += furniture_faces(item, rng)
        if item.base[2] == 0:
            shadow = contact_shadow(walls[FLOOR_FACE], item)
            walls[FLOOR_FACE] = lit(walls[FLOOR_FACE], shadow)
    return Scene(rectangles=(*walls, *rectangles))
