"""Refined keypoints: a feature type of their own, row by row those that were extracted.

Only x and y differ, so that the descriptors and matches of the extracted ones, which
count rows, are theirs too. The name of the type says what was refined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    find_feature_folders,
    open_feature_table,
)

SUFFIX = "_refined"


def refined_type(keypoints_type: str) -> str:
    """The type of keypoints after refinement, ``r2d2_refined`` of ``r2d2``."""
    return f"{extracted_type(keypoints_type)}{SUFFIX}"


def extracted_type(keypoints_type: str) -> str:
    """The type of keypoints before refinement; their own if they are not refined."""
    return keypoints_type.removesuffix(SUFFIX)


def is_refined(keypoints_type: str) -> bool:
    """Whether keypoints of a type are refined ones."""
    return keypoints_type.endswith(SUFFIX)


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
