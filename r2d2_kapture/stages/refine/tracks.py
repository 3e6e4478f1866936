"""Tracks of keypoints over the verified matches of all pairs, as flat arrays.

The keypoints of all images have one numbering: those of an image follow those of the
image before. A track is a connected component of verified matches. It may hold several
keypoints of one image, such as one corner found on several scales, or corners that a
wrong match has joined: each is an observation of its own, registered against the same
reference, which refuses those that do not show what the reference shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from r2d2_kapture.refinement.frames import local_affinities
from r2d2_kapture.types import FloatArray, IndexArray

MATCHES_AT_A_TIME = 4_000_000
"""Whose tracks are joined at once."""
STEPS_FROM_REFERENCE = 3
"""Matches between an observation and its reference along which geometry is composed."""

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
    uprights: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.xy)

    def of(self, image: int) -> slice:
        """The keypoints of an image."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def references_in(self, image: int, reference: Labels) -> IndexArray:
        """Keypoints of an image that are their own references, in order."""
        numbers, found = self._numbers(image), reference[self.of(image)]
        chosen: IndexArray = numbers[found == numbers]
        return chosen

    def observations_in(self, image: int, reference: Labels) -> IndexArray:
        """Keypoints of an image that have another one as reference, in order."""
        numbers, found = self._numbers(image), reference[self.of(image)]
        chosen: IndexArray = numbers[(found >= 0) & (found != numbers)]
        return chosen

    def _numbers(self, image: int) -> IndexArray:
        keypoints = self.of(image)
        return np.arange(keypoints.start, keypoints.stop)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks:
    """The tracks of keypoints.

    Attributes:
        reference: (N,) keypoint that each is registered against; itself for references,
            -1 for keypoints without a verified match.
        affinities: (N, 2, 2) float32, what a step in pixels at the reference becomes in
            the image of the keypoint.
    """

    reference: Labels
    affinities: npt.NDArray[np.float32]


def find_tracks(keypoints: Numbering, matches: Iterable[Match]) -> Tracks:
    """Join matches into tracks, choose their references, and relate the others to them.

    Args:
        keypoints: of all images.
        matches: verified ones, which are gone through several times.
    """
    labels, matched = join(keypoints, matches)
    reference = choose_references(labels, matched, keypoints.sides)
    affinities = _relate(keypoints, reference, matches)
    return Tracks(reference=reference, affinities=affinities)


def join(keypoints: Numbering, matches: Iterable[Match]) -> tuple[Labels, Labels]:
    """The track of each keypoint, as a number below N, and how many matches it has."""
    count = len(keypoints)
    labels = np.arange(count, dtype=np.int32)
    matched = np.zeros(count, np.int32)
    for edges in _batches(keypoints, matches):
        matched += np.bincount(edges.ravel(), minlength=count).astype(np.int32)
        ends = labels[edges]
        joined = coo_matrix(
            (np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), (count, count)
        )
        labels = connected_components(joined, directed=False)[1][labels]
    return labels, matched


def _batches(keypoints: Numbering, matches: Iterable[Match]) -> Iterator[IndexArray]:
    """The two numbers of the keypoints of each match, many pairs at a time."""
    waiting: list[IndexArray] = []
    count = 0
    for first, second, rows in matches:
        waiting.append(rows + keypoints.starts[[first, second]])
        count += len(rows)
        if count >= MATCHES_AT_A_TIME:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def choose_references(labels: Labels, matched: Labels, sides: FloatArray) -> Labels:
    """The reference of each keypoint: the one of its track nearest to the median scale.

    Of these the one with most matches, then the first.

    Returns:
        (N,) their numbers; -1 for keypoints without a match.
    """
    members = np.flatnonzero(matched)
    members = members[np.lexsort((sides[members], labels[members]))]
    track, scales = labels[members], np.log2(sides[members])
    first = np.flatnonzero(np.diff(track, prepend=-1))
    lengths = np.diff(first, append=len(track))
    middle = np.repeat(scales[first + (lengths - 1) // 2], lengths)
    best = np.lexsort((members, -matched[members], np.abs(scales - middle), track))
    reference = np.full(len(labels), -1, np.int32)
    reference[members] = np.repeat(members[best[first]], lengths)
    return reference


def _relate(
    keypoints: Numbering, reference: Labels, matches: Iterable[Match]
) -> npt.NDArray[np.float32]:
    """Affinities along matches from the references on, else by scales and turns."""
    affinities = _by_scale(keypoints, reference)
    away = np.where(reference == np.arange(len(reference)), 0, -1).astype(np.int8)
    for steps in range(STEPS_FROM_REFERENCE):
        for first, second, rows in matches:
            ends = rows + keypoints.starts[[first, second]]
            for side in (0, 1):
                start, end = ends[:, side], ends[:, 1 - side]
                onward = (away[start] == steps) & (away[end] < 0)
                if not onward.any():
                    continue
                images = (first, second) if side == 0 else (second, first)
                along = _along(keypoints, images, start, end)[onward]
                here = affinities[start[onward]]
                affinities[end[onward]] = (along @ here).astype(np.float32)
                away[end[onward]] = steps + 1
    return affinities


def _along(
    keypoints: Numbering, images: tuple[int, int], start: IndexArray, end: IndexArray
) -> npt.NDArray[np.float64]:
    """(K, 2, 2) affinities of the matches of a pair, found in upright images."""
    upright, other = (keypoints.uprights[image] for image in images)
    found = local_affinities(
        keypoints.xy[start].astype(np.float64) @ upright,
        keypoints.xy[end].astype(np.float64) @ other,
        keypoints.sides[start],
        keypoints.sides[end],
    )
    return np.asarray(other @ found @ upright.T)


def _by_scale(keypoints: Numbering, reference: Labels) -> npt.NDArray[np.float32]:
    """(N, 2, 2) affinities of the ratio of scales, and of the turns of images."""
    affinities = np.tile(np.eye(2, dtype=np.float32), (len(reference), 1, 1))
    for image, upright in enumerate(keypoints.uprights):
        members = keypoints.observations_in(image, reference)
        of = reference[members]
        images = np.searchsorted(keypoints.starts, of, side="right") - 1
        turns = upright @ keypoints.uprights[images].transpose(0, 2, 1)
        ratio = keypoints.sides[members] / keypoints.sides[of]
        affinities[members] = turns * ratio[:, None, None]
    return affinities
