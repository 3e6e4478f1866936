"""The second pass finds points where a first pose puts them near keypoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap
from r2d2_kapture.stages.localize import second_pass
from r2d2_kapture.stages.localize.correspondences import Correspondences
from r2d2_kapture.stages.localize.second_pass import (
    neighbourhood,
    second_matches,
    with_second,
)
from r2d2_kapture.types import FloatArray, unit_rows

Array = npt.NDArray[np.float64]
PINHOLE = pycolmap.Camera(
    model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240]
)
POINTS = 200
JUNK = 30
QUERY = pycolmap.Rigid3d(
    pycolmap.Rotation3d(np.array([0.02, -0.05, 0.01])), [0.1, 0, 0]
)
SHIFTED = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0, 0.006, 0])), [0.01, 0, 0])


def moved(x: float, z: float = 0.0, turn: float = 0.0) -> pycolmap.Rigid3d:
    """A camera at (x, 0, z) that is turned about the vertical, in radians."""
    rotation = pycolmap.Rotation3d(np.array([0, turn, 0]))
    return pycolmap.Rigid3d(rotation, -(rotation.matrix() @ [x, 0, z]))


@dataclass(kw_only=True)
class World:
    """Points in front of cameras, each with a descriptor; a query shows them exactly.

    Attributes:
        sparse_map: in which every image observes all of its points.
        descriptors: by map image, one a keypoint.
        xy, described: keypoints and descriptors of the query: a row a point, then some
            that show none.
    """

    sparse_map: SparseMap
    descriptors: dict[str, FloatArray]
    xy: Array
    described: FloatArray

    def search(
        self,
        pose: pycolmap.Rigid3d = SHIFTED * QUERY,
        camera: pycolmap.Camera = PINHOLE,
        known: int = 20,
        radius: float = 8.0,
    ) -> Correspondences:
        rows = np.arange(known)
        return second_matches(
            self.sparse_map,
            Correspondences(keypoints=rows, points=rows),
            camera=camera,
            cam_from_world=pose,
            xy=self.xy,
            descriptors=self.described,
            read_descriptors=self.descriptors.get,
            radius=radius,
        )


def world(
    poses: dict[str, pycolmap.Rigid3d],
    sees: dict[str, npt.NDArray[np.int64]] | None = None,
    camera: pycolmap.Camera = PINHOLE,
    points: Array | None = None,
) -> World:
    rng = np.random.default_rng(0)
    if points is None:
        points = rng.uniform([-1.5, -1.2, 4], [1.5, 1.2, 7], (POINTS, 3))
    count = len(points)
    of_points = rng.normal(size=(count, 64))
    images, descriptors = {}, {}
    for name, pose in sorted(poses.items()):
        seen = np.arange(count) if sees is None else sees[name]
        rows = np.sort(rng.permutation(count + JUNK)[: len(seen)])
        images[name] = MapImage(
            cam_from_world=pose.matrix(),
            keypoints=rows,
            point_rows=rng.permutation(seen),
            keypoint_count=count + JUNK,
        )
        found = rng.normal(size=(count + JUNK, 64))
        noise = 0.3 * rng.normal(size=(len(seen), 64))
        found[rows] = of_points[images[name].point_rows] + noise
        descriptors[name] = unit_rows(found.astype(np.float32))
    xy = camera.img_from_cam(QUERY * points)
    described = of_points + 0.3 * rng.normal(size=of_points.shape)
    return World(
        sparse_map=SparseMap(
            points=points,
            point_ids=np.arange(count),
            images=images,
            cameras={name: PINHOLE for name in images},
        ),
        descriptors=descriptors,
        xy=np.concatenate([xy, rng.uniform(0, [640, 480], (JUNK, 2))]),
        described=unit_rows(
            np.concatenate([described, rng.normal(size=(JUNK, 64))]).astype(np.float32)
        ),
    )


def inside(of: World) -> npt.NDArray[np.int64]:
    """Points that the query shows where a shifted pose puts them inside of it, too."""
    xy = PINHOLE.img_from_cam(SHIFTED * QUERY * of.sparse_map.points)
    return np.flatnonzero(((xy >= 0) & (xy <= [640, 480])).all(axis=1))


def pairs(of: Correspondences) -> list[tuple[int, int]]:
    return list(zip(of.keypoints.tolist(), of.points.tolist()))


NEAR = {"a": moved(-0.2), "b": moved(0.3)}


def test_all_points_in_view_are_found_from_a_pose_that_is_pixels_off() -> None:
    made = world(NEAR)
    truth = inside(made)
    assert len(truth) > 150
    found = pairs(made.search())
    expected = {(i, i) for i in truth.tolist()}
    # noise of descriptors loses few, and none is wrong
    assert set(found) <= expected and len(found) > 0.9 * len(expected)
    assert found == sorted(found)
    assert found == pairs(made.search())


def test_points_of_images_that_share_no_inlier_are_found_over_their_neighbours() -> (
    None
):
    made = world(
        NEAR, {"a": np.arange(0, 120), "b": np.arange(100, POINTS)}
    )  # 20 inliers, all seen by a alone
    found = made.search().points
    assert (found >= 120).sum() > 50


def test_points_farther_than_the_radius_are_not_found() -> None:
    made = world(NEAR)
    shift = np.linalg.norm(
        PINHOLE.img_from_cam(SHIFTED * QUERY * made.sparse_map.points)
        - made.xy[:POINTS],
        axis=1,
    )
    near = set(np.flatnonzero(shift < 4).tolist())
    assert 0 < len(near) < 0.9 * POINTS
    assert set(made.search(radius=4.0).points.tolist()) <= near


@pytest.mark.parametrize(
    "pose",
    [
        pytest.param(moved(0, 11, np.pi), id="from behind"),
        pytest.param(moved(5.5, 5.5, -np.pi / 2), id="from the side"),
        pytest.param(moved(0, -12), id="from afar"),
    ],
)
def test_observations_from_elsewhere_are_not_used(pose: pycolmap.Rigid3d) -> None:
    assert len(world({"a": pose}).search()) == 0


def test_points_behind_the_camera_and_outside_of_the_image_are_not_found() -> None:
    made = world(NEAR)
    behind = moved(0, 11)
    assert len(made.search(behind)) == 0
    away = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0, 0.8, 0])), [0, 0, 0])
    assert len(made.search(away * QUERY)) == 0


def test_points_that_distortion_folds_into_the_image_are_not_found() -> None:
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=640, height=480, params=[500, 320, 240, -0.4]
    )
    rng = np.random.default_rng(1)
    depth = rng.uniform(4, 7, POINTS)
    x = np.where(np.arange(POINTS) < 100, rng.uniform(-0.4, 0.4, POINTS), 1.5)
    points = np.column_stack([x * depth, rng.uniform(-0.2, 0.2, POINTS) * depth, depth])
    folded = camera.img_from_cam(points[100:])
    assert (folded > 0).all() and (folded < [640, 480]).all()
    made = world(NEAR, camera=camera, points=points)
    found = made.search(QUERY, camera).points
    assert 80 < len(found) and found.max() < 100


def test_repeated_texture_is_told_apart_by_the_place() -> None:
    made = world(NEAR)
    same = made.described[0]
    for name, image in made.sparse_map.images.items():
        made.descriptors[name][image.keypoints] = same
    made.described[:POINTS] = same
    found = pairs(made.search(QUERY, radius=2.0))
    assert len(found) > 150
    assert sum(keypoint == point for keypoint, point in found) > 0.95 * len(found)


def test_each_keypoint_and_each_point_is_matched_once() -> None:
    made = world(NEAR)
    made.xy = np.concatenate([made.xy, made.xy[:POINTS] + 1])
    made.described = np.concatenate([made.described, made.described[:POINTS]])
    found = made.search()
    assert len(np.unique(found.keypoints)) == len(found)
    assert len(np.unique(found.points)) == len(found)
    # of equals the first
    assert found.keypoints.max() < POINTS


def test_descriptors_less_similar_than_those_of_the_inliers_match_nothing() -> None:
    made = world(NEAR)
    strange = np.random.default_rng(2).normal(size=(POINTS // 2, 64))
    made.described[POINTS // 2 : POINTS] = unit_rows(strange.astype(np.float32))
    found = made.search().points
    assert (found < POINTS // 2).sum() > 60 and (found >= POINTS // 2).sum() < 3


def test_a_wrong_pose_finds_next_to_nothing() -> None:
    made = world(NEAR)
    turn = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0, 0, 0.5])), [0, 0, 0])
    assert len(made.search(turn * QUERY)) < 5


def test_zeros_match_nothing_and_images_without_descriptors_are_left_out() -> None:
    made = world(NEAR)
    made.described[:50] = 0
    found = made.search(known=100)
    assert len(found) and found.keypoints.min() >= 50
    whole = pairs(world({"a": NEAR["a"]}).search())
    partly = world(NEAR)
    del partly.descriptors["b"]
    assert {p for _, p in pairs(partly.search())} <= set(range(POINTS))
    del partly.descriptors["a"]
    assert len(whole) and len(partly.search()) == 0


def test_without_inliers_or_keypoints_nothing_is_found() -> None:
    made = world(NEAR)
    assert len(made.search(known=0)) == 0
    nothing = replace(made, xy=made.xy[:0], described=made.described[:0])
    assert len(nothing.search(known=0)) == 0


def test_descriptors_of_other_features_are_refused() -> None:
    made = world(NEAR)
    made.descriptors["a"] = made.descriptors["a"][1:]
    with pytest.raises(FeatureFormatError, match="'a': found 229 descriptors, but 230"):
        made.search()
    made = world(NEAR)
    made.described = made.described[:, :32]
    with pytest.raises(FeatureFormatError, match="found 64 values each, expected 32"):
        made.search()


def test_comparing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(NEAR)
    whole = pairs(made.search())
    monkeypatch.setattr(second_pass, "COMPARED_AT_ONCE", 7)
    assert pairs(made.search()) == whole


def test_neighbours_are_those_that_see_most_of_the_points_then_of_theirs() -> None:
    sees = {
        "a": np.arange(0, 50),
        "b": np.arange(40, 90),
        "c": np.arange(80, 130),
        "d": np.arange(150, POINTS),
        "e": np.arange(0, 30),
    }
    sparse_map = world(dict.fromkeys(sees, moved(0)), sees).sparse_map
    assert neighbourhood(sparse_map, np.arange(45)) == ("a", "e", "b", "c")
    assert neighbourhood(sparse_map, np.arange(45), 3) == ("a", "e", "b")
    assert neighbourhood(sparse_map, np.arange(45), 1) == ("a",)
    assert neighbourhood(sparse_map, np.zeros(0, np.int64)) == ()


def test_the_second_correspondence_of_a_keypoint_counts() -> None:
    first = Correspondences(
        keypoints=np.array([1, 1, 4, 6]), points=np.array([8, 9, 2, 3])
    )
    second = Correspondences(keypoints=np.array([1, 5]), points=np.array([7, 0]))
    assert pairs(with_second(first, second)) == [(1, 7), (4, 2), (5, 0), (6, 3)]
