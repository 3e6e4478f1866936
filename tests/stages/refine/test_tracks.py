"""References of tracks, and steps that add up along them, for any matches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from r2d2_kapture.stages.refine.tracks import Match, Numbering, Tracks, find_tracks
from r2d2_kapture.types import IndexArray

IMAGES, EACH = 7, 30


def numbering() -> Numbering:
    rng = np.random.default_rng(0)
    count = IMAGES * EACH
    return Numbering(
        starts=np.arange(IMAGES + 1) * EACH,
        xy=rng.uniform(0, 500, (count, 2)).astype(np.float32),
        sides=(32 * 2 ** rng.integers(0, 3, count)).astype(np.float32),
        uprights=np.tile(np.eye(2), (IMAGES, 1, 1)),
    )


def random_matches(seed: int, share: float) -> list[Match]:
    """Some of the right matches of each pair, and some wrong ones."""
    rng = np.random.default_rng(seed)
    found = []
    for first in range(IMAGES):
        for second in range(first + 1, IMAGES):
            rows = np.flatnonzero(rng.uniform(size=EACH) < share)
            wrong = np.where(rng.uniform(size=len(rows)) < 0.1, rows[::-1], rows)
            found.append((first, second, np.stack([rows, wrong], axis=1)))
    return found


def edges_of(matches: list[Match]) -> IndexArray:
    return np.concatenate([rows + [[a * EACH, b * EACH]] for a, b, rows in matches])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_references_cover_all_matched_keypoints(seed: int, share: float) -> None:
    matches = random_matches(seed, share)
    tracks = find_tracks(numbering(), matches)
    edges = edges_of(matches)
    matched = np.isin(np.arange(IMAGES * EACH), edges)
    np.testing.assert_array_equal(tracks.references >= 0, matched)
    assert not tracks.is_reference[edges].all(axis=1).any()
    pairs = {*map(tuple, edges.tolist()), *map(tuple, edges[:, ::-1].tolist())}
    members = np.flatnonzero(matched & ~tracks.is_reference)
    assert all((k, tracks.references[k]) in pairs for k in members.tolist())
    # links between references have no end but the first of a track
    at = np.arange(IMAGES * EACH)[matched]
    for _ in range(IMAGES * EACH):
        at = tracks.references[at]
    assert (tracks.references[at] == at).all() and tracks.is_reference[at].all()


def test_the_same_tracks_in_any_order_of_pairs() -> None:
    matches = random_matches(0, 0.5)
    first = find_tracks(numbering(), matches)
    other = find_tracks(numbering(), matches[::-1])
    np.testing.assert_array_equal(first.references, other.references)


def test_a_track_registers_against_its_most_matched_keypoint() -> None:
    rows = np.zeros((1, 2), np.int64)
    star = [(0, 1, rows), (1, 2, rows), (1, 3, rows)]
    tracks = find_tracks(numbering(), star)
    assert tracks.references[[0, EACH, 2 * EACH, 3 * EACH]].tolist() == [EACH] * 4
    assert (tracks.references == np.arange(len(tracks.references))).sum() == 1


def test_affinities_without_neighbours_are_ratios_of_scale_and_turns() -> None:
    keypoints = numbering()
    keypoints.uprights[1] = [[0, 1], [-1, 0]]
    keypoints.sides[[0, EACH]] = 64, 32
    rows = np.zeros((1, 2), np.int64)
    tracks = find_tracks(keypoints, [(0, 1, rows)])
    assert tracks.references[[0, EACH]].tolist() == [EACH, EACH]
    np.testing.assert_allclose(tracks.affinities[0], [[0, -2], [2, 0]], atol=1e-6)


def test_steps_of_references_are_passed_on() -> None:
    double = np.tile(2 * np.eye(2, dtype=np.float32), (5, 1, 1))
    tracks = Tracks(
        references=np.array([0, 0, 1, 2, -1], np.int32),
        affinities=double,
        is_reference=np.array([True, True, True, False, False]),
        offsets=np.zeros((5, 2), np.float32),
    )
    steps = np.array([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [3.0, 3.0]])
    moved = np.array([False, True, True, True, False])
    total = tracks.settle(steps, moved)
    expected = [[0, 0], [1, 0], [2, 1], [4.5, 2.5], [0, 0]]
    np.testing.assert_allclose(total, expected)
    moved[1] = False  # a reference that stays passes nothing on
    np.testing.assert_allclose(tracks.settle(steps, moved)[3], [0.5, 2.5])


def test_a_long_track_is_gone_through_few_times() -> None:
    """The matches of a camera that stands still are as many in any image."""
    count = 400
    still = Numbering(
        starts=np.arange(count + 1) * 2,
        xy=np.tile(np.float32([[10, 20], [30, 40]]), (count, 1)),
        sides=np.full(2 * count, 32, np.float32),
        uprights=np.tile(np.eye(2), (count, 1, 1)),
    )
    both = np.array([[0, 0], [1, 1]])
    passes = []

    class Matches:
        def __iter__(self) -> Iterator[Match]:
            passes.append(1)
            for first in range(count):
                for second in range(first + 1, min(first + 4, count)):
                    yield first, second, both

    assert find_tracks(still, Matches()).references.min() >= 0
    assert len(passes) <= 30
