"""HPatches results as D2-Net and R2D2 published them.

A file is an object array of three: errors of illumination pairs, errors of viewpoint
pairs, and (kind of each pair, features of each image, matches of each pair). The
errors map a threshold in pixels to the sum over pairs of the share of correct matches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import UNREADABLE, FeatureFormatError
from r2d2_kapture.io.array_pickle import ObjectArray, read_object_array

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Group = Literal["illumination", "viewpoint"]

GROUPS: dict[Group, str] = {"illumination": "i", "viewpoint": "v"}


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedGroup:
    """Published results on the pairs of one kind.

    Attributes:
        pairs: number of image pairs.
        accuracy: mean matching accuracy at each threshold in pixels.
        features: mean number of features of an image.
        matches: mean number of matches of a pair.
    """

    pairs: int
    accuracy: Mapping[float, float]
    features: float
    matches: float


def read_published_cache(path: Path) -> dict[Group, PublishedGroup]:
    """Read the means of a published cache, illumination and viewpoint.

    Raises:
        FeatureFormatError: as read_object_array, or an array of other content.
    """
    elements = read_object_array(path)
    try:
        illumination, viewpoint, counts = elements
        kinds, features, matches = (_array(part).ravel() for part in _items(counts))
        errors: dict[Group, Any] = {
            "illumination": illumination,
            "viewpoint": viewpoint,
        }
        groups = {
            group: _group(errors[group], kinds == letter, features, matches)
            for group, letter in GROUPS.items()
        }
        if len({frozenset(group.accuracy) for group in groups.values()}) > 1:
            raise ValueError("found other thresholds in one kind than in the other")
        return groups
    except UNREADABLE as error:
        raise FeatureFormatError(
            f"{path}: found an array of objects, but no HPatches results: {error}"
        ) from error


def _items(value: Any) -> Any:
    return value.content if isinstance(value, ObjectArray) else value


def _array(value: Any) -> npt.NDArray[Any]:
    return np.asarray(_items(value))


def _group(
    errors: Mapping[int, float],
    in_group: BoolArray,
    features: IntArray,
    matches: IntArray,
) -> PublishedGroup:
    """Means over the pairs of a group; every sequence has as many."""
    sequences = len(features) - len(matches)
    of_sequence = in_group.reshape(sequences, -1)[:, 0]
    pairs = int(in_group.sum())
    if pairs == 0:
        raise ValueError("found no pair of one of its kinds")
    accuracy = {float(t): float(total) / pairs for t, total in errors.items()}
    means = (
        float(features.reshape(sequences, -1)[of_sequence].mean()),
        float(matches[in_group].mean()),
    )
    # comparisons with NaN are false
    if not all(0 <= share <= 1 for share in accuracy.values()):
        raise ValueError("found an accuracy that is not within 0 to 1")
    if not all(0 <= mean < float("inf") for mean in (*means, *accuracy)):
        raise ValueError("found a count or a threshold below 0 or not finite")
    return PublishedGroup(
        pairs=pairs, accuracy=accuracy, features=means[0], matches=means[1]
    )
