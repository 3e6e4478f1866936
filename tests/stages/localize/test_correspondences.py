"""Keypoints and map points brought together, and map images by what they share."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap
from r2d2_kapture.stages.localize.correspondences import (
    covisible_groups,
    gather_correspondences,
)


def map_image(seen: dict[int, int]) -> MapImage:
    """An image whose keypoints (keys) see points (values)."""
    keypoints = sorted(seen)
    return MapImage(
        cam_from_world=np.eye(4)[:3],
        keypoints=np.array(keypoints, np.int64),
        point_rows=np.array([seen[i] for i in keypoints], np.int64),
        keypoint_count=None,
    )


def make_map(images: dict[str, dict[int, int]]) -> SparseMap:
    return SparseMap(
        points=np.zeros((10, 3)),
        point_ids=np.arange(10),
        images={name: map_image(seen) for name, seen in images.items()},
        cameras={},
    )


def test_each_keypoint_meets_each_point_once_in_order() -> None:
    sparse_map = make_map({"a": {0: 5, 1: 6, 4: 2}, "b": {0: 6, 7: 5}})
    matches = {
        # keypoint 2 of a sees nothing; 9 is beyond all that see something
        "b": np.array([[3, 7], [1, 0]]),
        "a": np.array([[3, 0], [3, 1], [2, 2], [0, 4], [8, 9]]),
    }
    found = gather_correspondences(sparse_map, matches)
    assert found.keypoints.tolist() == [0, 1, 3, 3]
    assert found.points.tolist() == [2, 6, 5, 6]
    assert len(found) == 4


@pytest.mark.parametrize(
    "matches",
    [{}, {"a": np.zeros((0, 2), np.int64)}, {"empty": np.array([[0, 0]])}],
)
def test_nothing_matched_is_no_correspondence(matches: dict[str, np.ndarray]) -> None:
    sparse_map = make_map({"a": {0: 5}, "empty": {}})
    assert len(gather_correspondences(sparse_map, matches)) == 0


def test_groups_share_points_directly_or_through_others() -> None:
    sparse_map = make_map(
        {
            "a": {0: 1},
            "b": {0: 2, 1: 3},
            "c": {5: 1, 6: 4},
            "d": {0: 3, 2: 9},
            "e": {0: 4, 1: 8},
            "f": {},
        }
    )
    groups = covisible_groups(sparse_map, ["b", "e", "a", "f", "d", "c"])
    assert groups == (("e", "a", "c"), ("b", "d"), ("f",))
    # without c, nothing ties a to e
    assert covisible_groups(sparse_map, ["e", "a", "d", "b"]) == (
        ("d", "b"),
        ("e",),
        ("a",),
    )
    assert covisible_groups(sparse_map, []) == ()
    assert covisible_groups(sparse_map, ["f"]) == (("f",),)
