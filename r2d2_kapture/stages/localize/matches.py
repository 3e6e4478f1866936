"""The inputs of a query: pairs, keypoints, matches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap
from r2d2_kapture.io.features.reading import check_inside, patch_sides
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.kapture.pairs import ImagePair, sorted_pair
from r2d2_kapture.io.kapture.refined_features import are_steps
from r2d2_kapture.types import IndexArray, some_names

DoubleArray = npt.NDArray[np.float64]

MOVED = 1.0
"""Pixels that a keypoint of the map and of the features may differ: more than origins
do."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Which map images each query is paired with.

    Attributes:
        of_query: by query, map images in order of the pairs.
        unknown: first images of pairs without a query, in order of names.
    """

    of_query: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Sorted pairs of queries and their partners."""
        return [
            sorted_pair(q, n) for q, images in self.of_query.items() for n in images
        ]

    @property
    def images(self) -> set[str]:
        """Number of queries and images that they are paired with."""
        return set(self.of_query).union(*self.of_query.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryMatches:
    """Keypoints of a query and their matches with map images.

    Attributes:
        retrieved: its partners in the map, in order of the pairs.
        absent: number of its partners that are not in the map.
        xy: (N, 2) its keypoints, in COLMAP's pixel origin.
        matches: by name of the map image, (K, 2) keypoints of the query and of that
            image; pairs without a matches file are left out.
        error: why keypoints or matches cannot be read; None if they can.
    """

    retrieved: tuple[str, ...]
    absent: int
    xy: DoubleArray
    matches: Mapping[str, IndexArray]
    error: str | None = None

    @property
    def count(self) -> int:
        """Number of matches with all map images."""
        return sum(map(len, self.matches.values()))

    def lack(self) -> str | None:
        """What is missing for a pose, with the way out; None if nothing is."""
        if self.error is not None:
            return self.error
        if not self.retrieved and not self.absent:
            return "no pairs; pair it with map images using kapture_r2d2_pairs"
        if not self.retrieved:
            return f"none of the {self.absent} images it is paired with is in the map"
        if not len(self.xy):
            return "no keypoints"
        if not self.matches:
            return (
                f"none of its {len(self.retrieved)} pairs is matched; run "
                "kapture_r2d2_match with the same list of pairs"
            )
        if not self.count:
            return f"no matches with {len(self.matches)} map images"
        return None


def retrieve(pairs: Iterable[ImagePair], queries: Iterable[str]) -> Retrieval:
    """Find the partners of each query; a query may be a map image too."""
    of_query: dict[str, list[str]] = {name: [] for name in queries}
    unknown: set[str] = set()
    for pair in pairs:
        first, second = pair.names
        for name, other in ((first, second), (second, first)):
            if name in of_query:
                of_query[name].append(other)
        if first not in of_query and second not in of_query:
            unknown.add(first)
    return Retrieval(
        # a pair may be listed in both orders
        of_query={n: tuple(dict.fromkeys(images)) for n, images in of_query.items()},
        unknown=tuple(sorted(unknown)),
    )


def retrieval_warnings(
    retrieval: Retrieval, sparse_map: SparseMap, matches: MatchTable
) -> Iterator[str]:
    """The warnings on pairs that are not used.

    Queries without any usable pair fail, and are not repeated here.
    """
    if retrieval.unknown:
        yield (
            f"{len(retrieval.unknown)} images of the pairs are not queries, nor are "
            f"their partners: {some_names(retrieval.unknown)}; these pairs are not "
            "used"
        )
    in_map = {
        query: [name for name in images if name in sparse_map.images]
        for query, images in retrieval.of_query.items()
    }
    absent = {
        name
        for query, images in retrieval.of_query.items()
        for name in images
        if in_map[query] and name not in sparse_map.images
    }
    if absent:
        yield (
            f"{len(absent)} images that queries are paired with are not in the map and "
            f"not used: {some_names(sorted(absent))}"
        )
    matched = frozenset(matches.pairs)
    unmatched = {
        query: [name for name in images if sorted_pair(query, name) not in matched]
        for query, images in in_map.items()
    }
    partly = [q for q in in_map if 0 < len(unmatched[q]) < len(in_map[q])]
    if partly:
        yield (
            f"{sum(len(unmatched[q]) for q in partly)} pairs of {len(partly)} queries "
            f"are not matched: {some_names(partly)}; their poses are estimated from "
            "the others: run kapture_r2d2_match with the same list of pairs, then "
            "localize again"
        )


def no_matches(
    *, retrieved: tuple[str, ...] = (), absent: int = 0, error: str | None = None
) -> QueryMatches:
    """The inputs of a query whose features are not or cannot be read."""
    return QueryMatches(
        retrieved=retrieved,
        absent=absent,
        xy=np.zeros((0, 2)),
        matches={},
        error=error,
    )


def read_query_matches(
    name: str,
    size: tuple[int, int],
    paired: Iterable[str],
    sparse_map: SparseMap,
    keypoints: FeatureTable,
    matches: MatchTable,
) -> QueryMatches:
    """Read the inputs of a query.

    Args:
        name: of the query.
        size: (W, H) in pixels of its camera.
        paired: its partners.
        sparse_map: the map.
        keypoints: of the query, and of the map images if available.
        matches: of the pairs.

    Returns:
        With ``error`` if keypoints or matches are missing or broken, keypoints belong
        to an image of another size, matches name keypoints that do not exist, or the
        map was made with other keypoints.
    """
    images = list(paired)
    retrieved = tuple(image for image in images if image in sparse_map.images)
    nothing = no_matches(retrieved=retrieved, absent=len(images) - len(retrieved))
    if not retrieved:
        return nothing
    try:
        xy, found = _read(name, size, retrieved, sparse_map, keypoints, matches)
    except FeatureFormatError as error:
        return dataclasses.replace(nothing, error=str(error))
    return dataclasses.replace(nothing, xy=xy, matches=found)


def _read(
    name: str,
    size: tuple[int, int],
    retrieved: Iterable[str],
    sparse_map: SparseMap,
    keypoints: FeatureTable,
    matches: MatchTable,
) -> tuple[DoubleArray, dict[str, IndexArray]]:
    """Keypoints and matches of a query, as in QueryMatches."""
    rows = keypoints.read(name)[:, :2].astype(np.float64)
    check_inside(rows, size, f"'{name}'")
    xy: DoubleArray = colmap_from_kapture(rows).astype(np.float64)
    found: dict[str, IndexArray] = {}
    for image in retrieved:
        pair_matches = matches.read(name, image)
        if pair_matches is not None:
            count = _keypoint_count(image, sparse_map, keypoints)
            # an index out of range would go unnoticed, or name a wrong point
            pair_matches.check_counts((name, image), (len(xy), count))
            found[image] = pair_matches.indices
    return xy, found


def refuse_moved_keypoints(
    sparse_map: SparseMap,
    keypoints: FeatureTable,
    images: Iterable[str],
    map_type: str | None = None,
) -> None:
    """Refuse keypoints of map images whose positions differ from those in the map.

    They were extracted again from a replaced image. Where their number differs, or they
    cannot be read, the queries matched with them fail.

    Args:
        sparse_map: the map.
        keypoints: of queries and of map images.
        images: in question.
        map_type: of the keypoints of the map, where it is known; if it is another than
            that of the keypoints, they may have been refined.

    Raises:
        DatasetError: naming images, and the way out.
    """
    moved = [
        image
        for image in sorted(images)
        if image in sparse_map.images
        and image in keypoints
        and _moved(
            image,
            sparse_map.images[image],
            keypoints,
            refined=map_type != keypoints.type_name,
        )
    ]
    if moved:
        raise DatasetError(
            f"keypoints '{keypoints.type_name}' of {len(moved)} map images "
            f"differ from those in the map: {some_names(moved)}; run "
            "kapture_r2d2_verify and kapture_r2d2_map again, or give the features that "
            "the map was made with"
        )


def _moved(
    name: str, image: MapImage, keypoints: FeatureTable, *, refined: bool
) -> bool:
    try:
        rows = keypoints.read(name)
    except FeatureFormatError:
        return False
    if image.xy is None or image.keypoint_count != len(rows):
        return False
    seeing = colmap_from_kapture(rows[image.keypoints, :2].astype(np.float64))
    moves = seeing - image.xy
    if refined:
        return not are_steps(moves, patch_sides(rows)[image.keypoints])
    return bool((np.abs(moves) > MOVED).any())


def _keypoint_count(image: str, sparse_map: SparseMap, keypoints: FeatureTable) -> int:
    """Number of keypoints of a map image, from the map or the features."""
    of_map = sparse_map.images[image].keypoint_count
    of_table = keypoints.count(image) if image in keypoints else None
    if of_map is not None and of_table is not None and of_map != of_table:
        raise FeatureFormatError(
            f"'{image}': found {of_table} keypoints of type '{keypoints.type_name}', "
            f"but {of_map} in the map; give the features that the map was made with"
        )
    counts = [count for count in (of_map, of_table) if count is not None]
    return min(counts, default=np.iinfo(np.int64).max)
