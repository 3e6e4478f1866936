"""Matches, global features and lists in the layout of hloc.

matches.h5 has a group a pair, ``A/B`` with "-" for the "/" in names:

    matches0          (N,) int32     row in B of each of the N rows of A, -1: none
    matching_scores0  (N,) float32   higher is better; 0 where there is no match

global-feats.h5 has a group an image, named as the image, with ``global_descriptor``
(D,). Lists have a pair or an image a line, split at spaces.
Source: https://github.com/cvg/Hierarchical-Localization, hloc/match_features.py,
hloc/extract_features.py and hloc/utils/parsers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pycolmap

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.hdf5 import creating_h5, open_h5
from r2d2_kapture.types import FloatArray, IndexArray, PairMatches

ROOM_PER_PAIR = 1 << 13
"""Bytes of one pair's groups and headers, more than HDF5 takes."""

Pair = tuple[str, str]
H5Kind = Literal["features", "matches", "global features"]


def plain_name(name: str) -> str:
    """An image's name in the names of pairs."""
    return name.replace("/", "-")


def check_plain_names(names: Iterable[str]) -> None:
    """Refuse images whose pairs hloc cannot distinguish.

    Raises:
        FeatureFormatError: naming two of them.
    """
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(plain_name(name), name)
        if other != name:
            raise FeatureFormatError(
                f"'{other}' and '{name}': found two images whose pairs have one name "
                f"in hloc ('{plain_name(name)}'), expected names that differ in more "
                "than / and -; rename one of them"
            )


def first_matches(matches: PairMatches, count: int) -> tuple[IndexArray, FloatArray]:
    """The best match of each row of the first image.

    Args:
        matches: from the first to the second image.
        count: rows of the first image.

    Returns:
        (count,) rows of the second image, -1 where there is none, and their scores.
    """
    second = np.full(count, -1, np.int64)
    scores = np.zeros(count, np.float32)
    order = np.argsort(matches.scores, kind="stable")  # the last assignment stays
    first = matches.indices[order, 0]
    second[first] = matches.indices[order, 1]
    scores[first] = matches.scores[order]
    return second, scores


def write_h5_matches(
    path: Path, items: Iterable[tuple[Pair, PairMatches, int]]
) -> tuple[int, int]:
    """Write the matches of pairs; the file appears when it is complete.

    Args:
        path: the file to make or replace.
        items: pairs, their matches, and the number of keypoints of the first image.

    Returns:
        How many matches are in it, and how many are not, since a keypoint of a first
        image has one match.

    Raises:
        OutputError: the file system refused.
    """
    kept = given = 0
    with creating_h5(path) as (file, reserve):
        for (name1, name2), matches, count in items:
            reserve(8 * count + ROOM_PER_PAIR)
            second, scores = first_matches(matches, count)
            group = file.create_group(f"{plain_name(name1)}/{plain_name(name2)}")
            group["matches0"] = second.astype(np.int32)
            group["matching_scores0"] = scores
            kept += int((second >= 0).sum())
            given += len(matches)
    return kept, given - kept


def write_h5_global(path: Path, items: Iterable[tuple[str, FloatArray]]) -> None:
    """Write a global feature (D,) of each image; the file appears when complete.

    Raises:
        OutputError: the file system refused.
    """
    with creating_h5(path) as (file, reserve):
        for name, row in items:
            reserve(4 * row.size + ROOM_PER_PAIR)
            file.create_group(name)["global_descriptor"] = row.astype(np.float32)


def camera_line(name: str, camera: pycolmap.Camera) -> str:
    """A query with its camera, in COLMAP's pixel origin, as hloc localizes it."""
    values = [camera.width, camera.height, *map(repr, camera.params.tolist())]
    return " ".join([name, camera.model_name, *map(str, values)])


def h5_kind(path: Path) -> H5Kind:
    """What a file holds, by the first group that says it.

    Raises:
        FeatureFormatError: absent, truncated, of another format, or none of them.
    """
    kinds: dict[str, H5Kind] = {
        "keypoints": "features",
        "matches0": "matches",
        "global_descriptor": "global features",
    }
    with open_h5(path) as file:
        found = file.visititems(lambda name, item: kinds.get(name.rpartition("/")[2]))
    if found is None:
        raise FeatureFormatError(
            f"{path}: found no features, matches or global features, expected groups "
            f"with {', '.join(kinds)} as hloc writes them; give another file"
        )
    kind: H5Kind = found
    return kind


def h5_pairs(path: Path, names: Iterable[str]) -> tuple[list[Pair], list[str]]:
    """The pairs of a file of matches whose images are known, and other groups.

    A pair that occurs in both orders counts as it comes first.

    Args:
        path: of the file.
        names: of the images, which ``check_plain_names`` has passed.

    Raises:
        FeatureFormatError: absent, truncated or of another format.
    """
    known = {plain_name(name): name for name in names}
    pairs: dict[Pair, Pair] = {}
    unknown: list[str] = []

    def visit(group: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and "matches0" in item:
            pair = _pair_of(group, known)
            if pair is None:
                unknown.append(group)
            else:
                pairs.setdefault((min(pair), max(pair)), pair)

    with open_h5(path) as file:
        file.visititems(visit)
    return list(pairs.values()), unknown


def _pair_of(group: str, known: Mapping[str, str]) -> Pair | None:
    """The images of ``A/B``, or of ``A_B`` in older files."""
    first, slash, second = group.partition("/")
    splits = [(first, second)] if slash else []
    if not slash:
        places = [i for i, character in enumerate(group) if character == "_"]
        splits = [(group[:i], group[i + 1 :]) for i in places]
    for one, other in splits:
        if one in known and other in known:
            return known[one], known[other]
    return None


def read_h5_global(path: Path) -> Iterator[tuple[str, FloatArray]]:
    """Name and (D,) global feature of each image of a file.

    Raises:
        FeatureFormatError: absent, truncated, of another format, or not finite.
    """
    with open_h5(path) as file:
        names: list[str] = []
        file.visit(lambda name: names.append(name))
        for name in names:
            image, _, last = name.rpartition("/")
            if last == "global_descriptor":
                row = np.asarray(file[name][()], np.float32).ravel()
                if not np.isfinite(row).all():
                    raise FeatureFormatError(
                        f"{path}: image '{image}': found a global_descriptor that is "
                        "not finite; make the file again"
                    )
                yield image, row
