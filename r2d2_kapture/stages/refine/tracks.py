"""Keypoints of verified matches, each with the one that it is registered against.

The keypoints of all images have one numbering: those of an image follow those of the
image before. A track, the keypoints that matches join, may hold several keypoints of
one image, such as a corner found on several scales, and distinct corners that a wrong
match joins; and its ends may look too different to be compared. So a track has several
references: the keypoints with most matches, no two of them matched with each other.
Every other keypoint has one among those that it is matched with. References are in turn
registered against those with more matches that share a keypoint with them. Steps add up
along these links, so that a track is consistent as far as its patches can be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.refinement.frames import local_affinities
from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
HASH_FACTOR = 2_654_435_769
"""2^32 over the golden ratio (Knuth, "The Art of Computer Programming", 6.4); it is
odd, so that no two numbers below 2^32 have the same hash."""

Labels = npt.NDArray[np.int32]
Match = tuple[int, int, IndexArray]
"""Positions of two images in the list of all, and (K, 2) rows of their keypoints."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbering:
    """The keypoints of all images, image after image.

    Attributes:
        starts: (I + 1,) number of each image's first keypoint, and of all keypoints.
        xy: (N, 2) pixels, (0, 0) at the centre of the first one.
        sides: (N,) of their patches, in pixels.
        uprights: (I, 2, 2) steps in the stored image of one pixel along x and y (its
            columns) of the image as the network saw it, turned.
    """

    starts: IndexArray
    xy: FloatArray
    sides: FloatArray
    uprights: DoubleArray

    def __len__(self) -> int:
        return len(self.xy)

    def of(self, image: int) -> slice:
        """The keypoints of an image."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def images_of(self, numbers: npt.NDArray[np.integer]) -> IndexArray:
        """The image of each keypoint."""
        found = np.searchsorted(self.starts, numbers, side="right") - 1
        return np.asarray(found, np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks:
    """What each keypoint is registered against.

    Attributes:
        references: (N,) number of the keypoint that each is registered against; its own
            for the first of a track, -1 without verified matches.
        affinities: (N, 2, 2) float32, what a step in pixels at the reference becomes in
            the image of the keypoint.
        is_reference: (N,) whether others are registered against it.
        offsets: (N, 2) float32 pixels from the keypoints of references to where their
            patches are cut.
    """

    references: Labels
    affinities: npt.NDArray[np.float32]
    is_reference: BoolArray
    offsets: FloatArray

    def references_in(self, keypoints: slice) -> IndexArray:
        """The references among consecutive keypoints, in order."""
        rows = np.flatnonzero(self.is_reference[keypoints])
        return np.asarray(rows + keypoints.start, np.int64)

    def observations_in(self, keypoints: slice) -> IndexArray:
        """The keypoints to register among consecutive ones, in order."""
        found = self.references[keypoints]
        others = found != np.arange(keypoints.start, keypoints.stop)
        rows = np.flatnonzero((found >= 0) & others)
        return np.asarray(rows + keypoints.start, np.int64)

    def settle(self, steps: DoubleArray, moved: BoolArray) -> DoubleArray:
        """Add the steps of references to those of keypoints registered against them.

        The first of a track moves to where its patch was cut.

        Args:
            steps: (N, 2) pixels, as the patch of the reference was cut.
            moved: (N,) whether the registration was accepted; the others stay.

        Returns:
            (N, 2) pixels that each keypoint moves, 0 for those that stay.
        """
        first = self.references == np.arange(len(self.references))
        total = np.where(moved[:, None], steps, 0.0)
        total[first] = self.offsets[first]
        waiting = np.flatnonzero(moved)
        settled = ~moved
        while len(waiting):
            of = self.references[waiting]
            ready = settled[of]
            now, of = waiting[ready], of[ready]
            affinities = self.affinities[now].astype(np.float64)
            gone = total[of] - self.offsets[of]
            total[now] += np.einsum("nij,nj->ni", affinities, gone)
            settled[now] = True
            waiting = waiting[~ready]
        return total


def find_tracks(keypoints: Numbering, matches: Iterable[Match]) -> Tracks:
    """Choose references, and relate the other keypoints to them.

    Args:
        keypoints: of all images.
        matches: verified ones, which are gone through several times.
    """
    ranks, order = _rank(keypoints, matches)
    references = choose_references(keypoints, matches, ranks, order)
    affinities = np.tile(np.eye(2, dtype=np.float32), (len(keypoints), 1, 1))
    chosen = references == np.arange(len(keypoints))
    for start, end, along in _directed(keypoints, matches):
        onward = references[end] == start
        affinities[end[onward]] = along(onward)
    best = ranks.copy()
    for start, end, along in _directed(keypoints, matches):
        through = references[start]
        onward = chosen[end] & (ranks[through] > best[end])
        best[end[onward]] = ranks[through[onward]]
        affinities[end[onward]] = along(onward) @ affinities[start[onward]]
    references[chosen] = order[best[chosen]]
    return Tracks(
        references=references,
        affinities=affinities,
        is_reference=chosen,
        offsets=np.zeros((len(keypoints), 2), np.float32),
    )


def _rank(keypoints: Numbering, matches: Iterable[Match]) -> tuple[Labels, Labels]:
    """The rank of each keypoint, -1 without matches, and the keypoints by rank.

    Those with most matches rank highest, of these the finest; then none of a long track
    waits for all that were seen before it, as their order is that of a hash.
    """
    counts = np.zeros(len(keypoints), np.int32)
    for ends in _ends(keypoints, matches):
        np.add.at(counts, ends, 1)
    members = np.flatnonzero(counts)
    hashed = (members * HASH_FACTOR) % 2**32
    worst_first = (hashed, -keypoints.sides[members], counts[members])
    order = members[np.lexsort(worst_first)].astype(np.int32)
    ranks = np.full(len(keypoints), -1, np.int32)
    ranks[order] = np.arange(len(order))
    return ranks, order


def choose_references(
    keypoints: Numbering, matches: Iterable[Match], ranks: Labels, order: Labels
) -> Labels:
    """References such that none is matched with another, and all others with one.

    In rounds, those that outrank all that they are matched with and that have no
    reference yet (Luby, "A simple parallel algorithm for the maximal independent set
    problem", SIAM Journal on Computing 1986, with these ranks).

    Returns:
        (N,) the reference of each keypoint, of several the one that ranks highest; its
        own for references, -1 for keypoints without matches.
    """
    references = np.full(len(keypoints), -1, np.int32)
    free = ranks >= 0
    while free.any():
        best = np.full(len(keypoints), -1, np.int32)
        for ends in _ends(keypoints, matches):
            both = ends[free[ends].all(axis=1)]
            for here, there in ((0, 1), (1, 0)):
                np.maximum.at(best, both[:, here], ranks[both[:, there]])
        chosen = free & (ranks > best)
        references[chosen] = np.flatnonzero(chosen)
        best[:] = -1
        for ends in _ends(keypoints, matches):
            for here, there in ((0, 1), (1, 0)):
                found = chosen[ends[:, there]] & free[ends[:, here]]
                ours, theirs = ends[found, here], ends[found, there]
                np.maximum.at(best, ours, ranks[theirs])
        joined = (best >= 0) & ~chosen
        references[joined] = order[best[joined]]
        free &= references < 0
    return references


def _ends(keypoints: Numbering, matches: Iterable[Match]) -> Iterator[IndexArray]:
    """(K, 2) numbers of the keypoints of the matches of each pair."""
    for first, second, rows in matches:
        yield rows + keypoints.starts[[first, second]]


def _directed(
    keypoints: Numbering, matches: Iterable[Match]
) -> Iterator[tuple[IndexArray, IndexArray, Callable[[BoolArray], DoubleArray]]]:
    """The matches of each pair, from either image to the other.

    Yields:
        (K,) numbers of the keypoints in the one and in the other image, and what gives
        the affinities of some of these matches.
    """
    for first, second, rows in matches:
        ends = rows + keypoints.starts[[first, second]]
        for images, (start, end) in (
            ((first, second), ends.T),
            ((second, first), ends[:, ::-1].T),
        ):
            along = functools.partial(_along, keypoints, images, start, end)
            yield start, end, along


def _along(
    keypoints: Numbering,
    images: tuple[int, int],
    start: IndexArray,
    end: IndexArray,
    wanted: BoolArray,
) -> DoubleArray:
    """Affinities of the wanted matches of a pair, found in upright images."""
    if not wanted.any():
        return np.zeros((0, 2, 2))
    upright, other = (keypoints.uprights[image] for image in images)
    found = local_affinities(
        keypoints.xy[start].astype(np.float64) @ upright,
        keypoints.xy[end].astype(np.float64) @ other,
        keypoints.sides[start],
        keypoints.sides[end],
        of=np.flatnonzero(wanted),
    )
    return np.asarray(other @ found @ upright.T)
