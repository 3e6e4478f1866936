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

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.hdf5 import creating_h5
from r2d2_kapture.types import FloatArray, IndexArray, PairMatches

ROOM_PER_PAIR = 1 << 13
"""Bytes of one pair's groups and headers, more than HDF5 takes."""

Pair = tuple[str, str]


def plain_name(name: str) -> str:
    """An image's name in the names of pairs."""
    return name.replace("/", "-")


def check_plain_names(names: Iterable[str]) -> None:
    """Refuse images of which hloc cannot tell the pairs apart.

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
