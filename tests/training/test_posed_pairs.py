"""Flow from depth and poses, against a scene whose geometry is exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.synthetic.rendering import (
    PinholeCamera,
    Rectangle,
    Scene,
    look_at,
    render,
)
from r2d2_kapture.training.loading import MemoryCache, PictureLoader
from r2d2_kapture.training.pairs import Flow, Points, RGBArray, pixel_grid
from r2d2_kapture.training.posed_pairs import (
    PinholeModel,
    PosedPairSource,
    PosedPicture,
    depth_flow,
    neighbouring_pairs,
)
from tests.scenes.rendered import (
    correlations,
    depth_of,
    picture_of,
    render_depth,
    square,
)

CAMERA = PinholeCamera(image_size=(160, 120), focal_length=140.0)
MODEL = PinholeModel(size=CAMERA.image_size, intrinsics=CAMERA.intrinsics)
CONFIG = PairConfig(crop_size=48, min_side=64, max_side=160, night=0)


def wall(x: float, y: float, side: float, seed: int) -> Rectangle:
    """A square that faces the cameras, which look along +y; z is up."""
    corner = (x - side / 2, y, 1 + side / 2)
    return square(corner, (side, 0, 0), (0, 0, -side), seed)


SCENE = Scene(rectangles=(wall(0, 4, 9, 0), wall(0.2, 2.4, 0.8, 1)))
POSES = [
    look_at(np.array([x, -0.2 * abs(x), 1.0]), np.array([0.0, 4.0, 1.0]))
    for x in (-0.6, -0.1, 0.5)
]


def posed(index: int) -> PosedPicture:
    return picture_of(str(index), POSES[index], CAMERA, SCENE)


PIXELS = pixel_grid(np.arange(160), np.arange(120))


def flow_from(first: int, second: int) -> Flow:
    pictures = posed(first), posed(second)
    return depth_flow(pictures, (depth_of(pictures[0]), depth_of(pictures[1])), 0.03)


def seen_from(index: int) -> Points:
    """(N, 3) points of the scene at the pixels of a view."""
    depth = render_depth(SCENE, POSES[index], CAMERA).reshape(-1, 1)
    camera = np.column_stack([MODEL.rays(PIXELS), np.ones(len(PIXELS))]) * depth
    return (camera - POSES[index][:3, 3]) @ POSES[index][:3, :3]


def projected(world: Points, pose: np.ndarray) -> Points:
    camera = world @ pose[:3, :3].T + pose[:3, 3]
    return MODEL.pixels(camera[:, :2] / camera[:, 2:])


@pytest.mark.parametrize("first, second", [(0, 1), (1, 0), (0, 2)])
def test_pixels_go_to_where_their_point_is_projected(first: int, second: int) -> None:
    found = flow_from(first, second)(PIXELS)
    known = np.isfinite(found[:, 0])
    assert known.mean() > 0.6
    expected = projected(seen_from(first), POSES[second])
    np.testing.assert_allclose(found[known], expected[known], atol=2e-3)
    back = flow_from(second, first)(found)
    known = np.isfinite(back[:, 0])
    assert known.mean() > 0.6
    np.testing.assert_allclose(back[known], PIXELS[known], atol=2e-3)


def test_what_the_other_camera_cannot_see_is_unknown() -> None:
    found, world = flow_from(0, 2)(PIXELS), seen_from(0)
    # the ray from the other camera to the point crosses the near square?
    centre = -POSES[2][:3, :3].T @ POSES[2][:3, 3]
    share = (2.4 - centre[1]) / (world[:, 1] - centre[1])
    crossing = centre + share[:, None] * (world - centre)
    behind = world[:, 1] > 3
    deep_inside = (np.abs(crossing[:, 0] - 0.2) < 0.37) & (
        np.abs(crossing[:, 2] - 1) < 0.37
    )
    hidden = behind & deep_inside
    assert hidden.sum() > 100
    assert np.isnan(found[hidden]).all()
    clear = behind & (np.abs(crossing[:, 0] - 0.2) > 0.45)
    targets = projected(world, POSES[2])
    clear &= ((targets > 1) & (targets < (158, 118))).all(axis=1)
    # but pixels at the edge of the near square, whose depth is a mixture
    assert np.isfinite(found[clear, 0]).mean() > 0.97


def looking(name: str, pose: np.ndarray, read_depth: Callable[[], Any]) -> PosedPicture:
    return PosedPicture(
        name=name,
        path=Path("2"),
        camera=MODEL,
        cam_from_world=pose,
        read_inverse_depth=read_depth,
    )


def test_points_behind_the_other_camera_are_not_seen() -> None:
    pose = look_at(np.array([0.0, 6.0, 1.0]), np.array([0.0, 9.0, 1.0]))
    other = looking("behind", pose, lambda: np.full((120, 160), 1 / 3, np.float32))
    pictures = posed(0), other
    flow = depth_flow(pictures, (depth_of(pictures[0]), depth_of(other)), 10.0)
    assert np.isnan(flow(PIXELS)).all()


def test_neighbours_are_near_and_look_alike() -> None:
    ahead = np.array([0.0, 1.0, 0.0])
    poses = [
        look_at(np.array([x, 0.0, 0.0]), np.array([x, 0.0, 0.0]) + ahead)
        for x in (0.0, 1.0, 2.0)
    ]
    poses.append(look_at(np.array([1.0, 0.1, 0.0]), np.array([1.0, -1.0, 0.0])))
    assert neighbouring_pairs(poses) == [(0, 1), (0, 2), (1, 2)]
    assert neighbouring_pairs(poses[:1]) == []
    many = [
        look_at(np.array([x, 0.0, 0.0]), np.array([x, 1.0, 0.0]))
        for x in np.arange(60.0)
    ]
    pairs = neighbouring_pairs(many)
    assert (0, 1) in pairs and (0, 59) not in pairs
    assert len(pairs) == len(set(pairs)) < 60 * 20


def read_view(path: Path) -> RGBArray:
    return render(SCENE, POSES[int(str(path))], CAMERA)


def source_of(pictures: list[PosedPicture], pairs, read=read_view) -> PosedPairSource:
    load = PictureLoader(read, CONFIG.max_side, MemoryCache(0.1))
    return PosedPairSource("room", pictures, pairs, CONFIG, load, 0.03)


def test_crops_of_a_pair_show_the_same_thing() -> None:
    source = source_of([posed(i) for i in range(3)], [(0, 1), (0, 2), (1, 2)])
    assert len(source) == 3 and source.name == "room"
    found = correlations(source, itertools.product(range(3), range(5)), difficulty=0.5)
    assert len(found) > 9
    assert np.median(found) > 0.9 and min(found) > 0.6


def test_either_picture_may_come_first() -> None:
    source = source_of([posed(0), posed(1)], [(0, 1)])
    drawn = [source.pair(0, np.random.default_rng(s), 0) for s in range(20)]
    names = {raw.name for raw in drawn if raw is not None}
    assert names == {"0 - 1", "1 - 0"}


def test_views_of_different_things_are_left_out() -> None:
    away = look_at(np.array([0.0, -9.0, 1.0]), np.array([0.0, -12.0, 1.0]))
    other = looking("away", away, lambda: np.full((120, 160), 0.3, np.float32))
    source = source_of([posed(0), other], [(0, 1)])
    assert source.pair(0, np.random.default_rng(0), 0) is None
    assert source.gone == ()


def test_unreadable_photographs_and_depths_are_left_out_and_counted() -> None:
    def read(path: Path) -> RGBArray:
        if path.name == "1":
            raise ImageError("gone")
        return read_view(path)

    def no_depth() -> np.ndarray:
        raise DatasetError("gone")

    blind = looking("blind", POSES[2], no_depth)
    source = source_of([posed(0), posed(1), blind], [(0, 1), (0, 2)], read)
    for index in (0, 1):
        assert source.pair(index, np.random.default_rng(0), 0) is None
    assert source.gone == ("1", "blind")


def test_shrunk_photographs_keep_their_flow() -> None:
    config = PairConfig(crop_size=32, min_side=48, max_side=60, night=0, jitter=0)
    load = PictureLoader(read_view, 60, MemoryCache(0.1))
    pictures = [posed(0), posed(1)]
    source = PosedPairSource("room", pictures, [(0, 1)], config, load, 0.03)
    assert load(Path("0")).size == (80, 60)
    (found,) = correlations(source, [(0, 1)], crop_size=32)
    assert found > 0.8


def test_no_pair_is_an_error() -> None:
    with pytest.raises(DatasetError, match="room: found no two of 1 posed images"):
        source_of([posed(0)], [])
