"""Cameras near each other, against all pairs of distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.matching import near_cameras as module
from r2d2_kapture.matching.near_cameras import (
    centres_and_axes,
    near_cameras,
    near_positions,
)
from r2d2_kapture.matching.pair_selection import Selection
from r2d2_kapture.types import IndexArray

Array = npt.NDArray[np.float64]
Pairs = dict[tuple[int, int], float]


def looking_along_x(centre: list[float], yaw: float) -> Array:
    """cam_from_world of a camera that looks along +x, turned about the y axis."""
    cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    # rows are the camera's axes in the world: right, down, forward
    rotation = np.array([[-sine, 0, -cosine], [0, 1, 0], [cosine, 0, -sine]])
    return np.column_stack([rotation, -rotation @ np.array(centre)])


def others_than(first: IndexArray, second: IndexArray) -> npt.NDArray[np.bool_]:
    return np.asarray(first != second)


def scores_of(found: Selection) -> Pairs:
    return dict(
        zip(zip(found.first.tolist(), found.second.tolist()), found.scores.tolist())
    )


def by_brute_force(
    places: Array,
    others: Array,
    top_k: int,
    nearest: float = 0,
    farthest: float = np.inf,
) -> list[tuple[int, int]]:
    expected = []
    for i, place in enumerate(places):
        apart = np.linalg.norm(others - place, axis=1)
        order = np.lexsort((np.arange(len(others)), -1 / (1 + apart)))
        kept = [j for j in order if i != j and nearest <= apart[j] <= farthest]
        expected += [(i, int(j)) for j in kept[: top_k or None]]
    return expected


@pytest.fixture(params=[1, 50, 1 << 20])
def block_pairs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One position at a time, a few, and all."""
    monkeypatch.setattr(module, "BLOCK_PAIRS", request.param)


def test_centres_and_axes_of_cameras() -> None:
    poses = np.stack([looking_along_x([1, 2, 3], 0), looking_along_x([-4, 0, 2], 90)])
    centres, axes = centres_and_axes(poses)
    np.testing.assert_allclose(centres, [[1, 2, 3], [-4, 0, 2]], atol=1e-12)
    np.testing.assert_allclose(axes, [[1, 0, 0], [0, 0, -1]], atol=1e-12)


@pytest.mark.usefixtures("block_pairs")
def test_near_and_alike() -> None:
    poses = np.stack(
        [
            looking_along_x([0, 0, 0], 0),
            looking_along_x([3, 0, 0], 29),
            looking_along_x([0, 1, 0], 31),
            looking_along_x([0, 0, 9], 0),
        ]
    )
    found = near_cameras(poses, poses, max_distance=5, max_angle=30, among=others_than)
    expected = {(0, 1): 1 / 4, (1, 2): 1 / (1 + np.sqrt(10))}
    both = expected | {(j, i): score for (i, j), score in expected.items()}
    assert scores_of(found) == pytest.approx(both)
    far = near_cameras(poses, poses, max_distance=None, max_angle=30, among=others_than)
    assert scores_of(far)[0, 3] == pytest.approx(1 / 10)
    best = near_cameras(poses, poses, top_k=1, max_angle=30, among=others_than)
    assert list(scores_of(best)) == [(0, 1), (1, 0), (2, 1), (3, 0)]


@pytest.mark.usefixtures("block_pairs")
@pytest.mark.parametrize("top_k", [0, 1, 4, 100])
@pytest.mark.parametrize("reach", [(0, np.inf), (0.2, 0.9), (0.9, 0.9), (5, 6)])
def test_positions_by_brute_force(top_k: int, reach: tuple[float, float]) -> None:
    places = np.random.default_rng(0).random((40, 3))
    found = near_positions(
        places,
        places,
        top_k=top_k,
        min_distance=reach[0],
        max_distance=None if reach[1] == np.inf else reach[1],
        among=others_than,
    )
    assert list(scores_of(found)) == by_brute_force(places, places, top_k, *reach)


@pytest.mark.usefixtures("block_pairs")
@pytest.mark.parametrize("top_k", [0, 1, 2, 5])
def test_of_equal_distances_the_lower_index(top_k: int) -> None:
    """A grid, of which some places are taken many times."""
    grid = np.stack(np.meshgrid([0, 1, 2], [0, 1, 2], [0.0]), -1).reshape(-1, 3)
    places = np.concatenate([grid, np.repeat(grid[4:5], 30, axis=0), grid])
    found = near_positions(places, places, top_k=top_k, among=others_than)
    assert list(scores_of(found)) == by_brute_force(places, places, top_k)


@pytest.mark.usefixtures("block_pairs")
def test_least_score_and_one_alone() -> None:
    places = np.array([[0.0, 0, 0], [1, 0, 0], [4, 0, 0]])
    found = near_positions(places, places, min_score=0.25, among=others_than)
    assert scores_of(found) == {(0, 1): 0.5, (1, 0): 0.5, (1, 2): 0.25, (2, 1): 0.25}
    assert not len(near_positions(places, places, min_score=1.5, among=others_than))
    alone = near_positions(places[:1], places[:1], top_k=3, among=others_than)
    assert len(alone) == 0
