"""What is known of a query before its pose: pairs, keypoints, matches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap
from r2d2_kapture.io.features.reading import check_inside
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable, sorted_pair
from r2d2_kapture.io.kapture.pairs import ImagePair
from r2d2_kapture.types import IndexArray, some_names

DoubleArray = npt.NDArray[np.float64]

MOVED = 1.0
"""Pixels between a keypoint of the map and of the features: more than two origins."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Which map images each query is paired with.

    Attributes:
        of_query: map images in order of the pairs, by query.
        unknown: first images of the pairs of which none is a query, in order of names.
    """

    of_query: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]

    @property
    def images(self) -> set[str]:
        """Queries, and images that they are paired with."""
        return set(self.of_query).union(*self.of_query.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryMatches:
    """Keypoints of a query and their matches with map images.

    Attributes:
        retrieved: images it is paired with that are in the map, in order of the pairs.
        absent: how many it is paired with that are not.
        xy: (N, 2) all its keypoints, in COLMAP's pixel origin.
        matches: (K, 2) rows of keypoints of the query and of a map image, by the name
            of that; pairs that were never matched are left out.
        error: why keypoints or matches cannot be read, and none are held; None where
            they can.
    """

    retrieved: tuple[str, ...]
    absent: int
    xy: DoubleArray
    matches: Mapping[str, IndexArray]
    error: str | None = None

    @property
    def count(self) -> int:
        """Matches with all map images."""
        return sum(map(len, self.matches.values()))

    def lack(self) -> str | None:
        """What is missing for a pose, and the way out; None where nothing is."""
        if self.error is not None:
            return self.error
        if not self.retrieved and not self.absent:
            return "no pairs; pair it with map images by kapture_r2d2_pairs"
        if not self.retrieved:
            return f"none of the {self.absent} images it is paired with is in the map"
        if not len(self.xy):
            return "no keypoints"
        if not self.matches:
            return (
                f"none of its {len(self.retrieved)} pairs is matched; run "
                "kapture_r2d2_match on the same list of pairs"
            )
        if not self.count:
            return f"no matches with {len(self.matches)} map images"
        return None


def retrieve(pairs: Iterable[ImagePair], queries: Iterable[str]) -> Retrieval:
    """Separate queries from map images; an image may be both, as those of a map are."""
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
        # a pair may be listed both ways
        of_query={n: tuple(dict.fromkeys(images)) for n, images in of_query.items()},
        unknown=tuple(sorted(unknown)),
    )


def retrieval_warnings(
    retrieval: Retrieval, sparse_map: SparseMap, matches: MatchTable
) -> Iterator[str]:
    """What a report says of pairs that no pose is found from.

    Queries of which all pairs are so fail, and are not said again.
    """
    if retrieval.unknown:
        yield (
            f"{len(retrieval.unknown)} images of the pairs are no queries, nor is what "
            f"they are paired with: {some_names(retrieval.unknown)}; these pairs are "
            "not used"
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
            f"{len(absent)} images that queries are paired with are not in the map: "
            f"{some_names(sorted(absent))}; poses are found without them"
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
            f"are not matched: {some_names(partly)}; their poses are found from the "
            "others: run kapture_r2d2_match on the same list of pairs, then this again"
        )


def no_matches(
    *, retrieved: tuple[str, ...] = (), absent: int = 0, error: str | None = None
) -> QueryMatches:
    """Of a query of which nothing can be read, or is to be."""
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
    """Read what a query has.

    Args:
        name: of the query.
        size: (W, H) in pixels of its camera.
        paired: images it is paired with.
        sparse_map: the map.
        keypoints: of the query, and of the map's images where they are at hand.
        matches: of the pairs.

    Returns:
        With ``error`` if keypoints or matches are absent or broken, keypoints are of a
        picture of another size, matches of keypoints that do not exist, or the map was
        made with other keypoints.
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
    """Keypoints of a query and its matches, as QueryMatches has them."""
    rows = keypoints.read(name)[:, :2].astype(np.float64)
    check_inside(rows, size, f"'{name}'")
    xy: DoubleArray = colmap_from_kapture(rows).astype(np.float64)
    found: dict[str, IndexArray] = {}
    for image in retrieved:
        pair_matches = matches.read(name, image)
        if pair_matches is not None:
            count = _keypoint_count(image, sparse_map, keypoints)
            # an index beyond all counts would go unnoticed, or to a wrong point
            pair_matches.check_counts((name, image), (len(xy), count))
            found[image] = pair_matches.indices
    return xy, found


def refuse_moved_keypoints(
    sparse_map: SparseMap, keypoints: FeatureTable, images: Iterable[str]
) -> None:
    """Refuse keypoints of map images that lie elsewhere than those of the map.

    As many were made anew of a picture that was replaced. Those of another number, or
    that cannot be read, fail with the queries that they are matched with.

    Raises:
        DatasetError: naming images, and the way out.
    """
    moved = [
        image
        for image in sorted(images)
        if image in sparse_map.images
        and image in keypoints
        and _moved(image, sparse_map.images[image], keypoints)
    ]
    if moved:
        raise DatasetError(
            f"keypoints '{keypoints.type_name}' of {len(moved)} map images "
            f"differ from those in the map: {some_names(moved)}; run "
            "kapture_r2d2_verify and kapture_r2d2_map again, or give the features that "
            "the map was made of"
        )


def _moved(name: str, image: MapImage, keypoints: FeatureTable) -> bool:
    try:
        rows = keypoints.read(name)
    except FeatureFormatError:
        return False
    if image.xy is None or image.keypoint_count != len(rows):
        return False
    seeing = colmap_from_kapture(rows[image.keypoints, :2].astype(np.float64))
    return bool((np.abs(seeing - image.xy) > MOVED).any())


def _keypoint_count(image: str, sparse_map: SparseMap, keypoints: FeatureTable) -> int:
    """Keypoints of a map image, as far as the map or the features have them."""
    of_map = sparse_map.images[image].keypoint_count
    of_table = keypoints.count(image) if image in keypoints else None
    if of_map is not None and of_table is not None and of_map != of_table:
        raise FeatureFormatError(
            f"'{image}': found {of_table} keypoints of type '{keypoints.type_name}', "
            f"but {of_map} in the map; give the features that the map was made of"
        )
    counts = [count for count in (of_map, of_table) if count is not None]
    return min(counts, default=np.iinfo(np.int64).max)
