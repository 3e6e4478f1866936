"""Refined keypoints: a feature type of their own, row by row those that were extracted.

Only x and y differ, so that the descriptors and matches of the extracted ones, which
count rows, are theirs too. The name of the type says what was refined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.types import PATCH_DIAMETER, FloatArray

SUFFIX = "_refined"
MOST = 2.0
"""Pixels of the level that a keypoint was found at, by which half of an image's move at
most."""


def refined_type(keypoints_type: str) -> str:
    """The type of keypoints after refinement, ``r2d2_refined`` of ``r2d2``."""
    return f"{extracted_type(keypoints_type)}{SUFFIX}"


def extracted_type(keypoints_type: str) -> str:
    """The type of keypoints before refinement; their own if they are not refined."""
    return keypoints_type.removesuffix(SUFFIX)


def is_refined(keypoints_type: str) -> bool:
    """Whether keypoints of a type are refined ones."""
    return keypoints_type.endswith(SUFFIX)


def may_be_refined(before: FloatArray, after: FloatArray) -> bool:
    """Whether keypoints of an image may be others after refinement.

    Args:
        before, after: (N, C) rows, see features/reading.py.
    """
    if before.shape != after.shape or not np.array_equal(before[:, 2:], after[:, 2:]):
        return False
    return are_steps(before[:, :2] - after[:, :2], patch_sides(before))


def are_steps(moves: npt.NDArray[np.floating], sides: FloatArray) -> bool:
    """Whether refinement may have moved keypoints of an image that far.

    Args:
        moves: (N, 2) in pixels.
        sides: (N,) of the keypoints' patches, in pixels.
    """
    levels = np.maximum(sides / PATCH_DIAMETER, 1)
    far = (np.abs(moves).max(axis=1, initial=0) > MOST * levels).sum()
    return bool(2 * far <= len(moves))


def open_extracted(table: FeatureTable, roots: Sequence[Path]) -> FeatureTable | None:
    """The keypoints that others were refined from; None where they are not refined.

    Args:
        table: of keypoints.
        roots: where those before refinement may be.

    Raises:
        DatasetError: see ``open_feature_table``.
    """
    name = extracted_type(table.type_name)
    folders = [one for root in roots for one in find_feature_folders(root, "keypoints")]
    if name == table.type_name or name not in {one.type_name for one in folders}:
        return None
    return open_feature_table(roots, "keypoints", name)


def with_extracted(table: FeatureTable, roots: Sequence[Path]) -> FeatureTable:
    """Refined keypoints, and of images without any, such as queries, the extracted
    ones.

    Args:
        table, roots: as of ``open_extracted``.
    """
    extracted = open_extracted(table, roots)
    if extracted is None:
        return table
    same = extracted.dsize == table.dsize
    return dataclasses.replace(
        table,
        dsize=table.dsize if same else 2,
        folders=(*table.folders, *extracted.folders),
    )
