"""Descriptors of a COLMAP 4 database, typed such that no tool takes them for others.

COLMAP's types are those of its own extractors. SIFT is 128 numbers of a byte; the
others are float32 values, four bytes each. What COLMAP has no type for is UNDEFINED: it
stores such rows, and refuses to match them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.types import FloatArray

SIFT_VALUES = 128

ReadDescriptors = Callable[[str, FloatArray], npt.NDArray[Any] | None]
"""Takes an image's name and the (N, 2) keypoints of the database.

Gives (N, D) rows, one for each keypoint; None leaves the image out.
"""


def colmap_descriptors(
    type_name: str, rows: npt.NDArray[Any]
) -> pycolmap.FeatureDescriptors:
    """The descriptors of an image as a database holds them.

    Args:
        type_name: of kapture, such as SIFT or aliked_n16rot.
        rows: (N, D); of other types than uint8 they are stored as float32.
    """
    kinds = pycolmap.FeatureExtractorType
    if rows.dtype == np.uint8:
        sift = rows.shape[1] == SIFT_VALUES and "sift" in type_name.casefold()
        kind = kinds.SIFT if sift else kinds.UNDEFINED
        return pycolmap.FeatureDescriptors(kind, np.ascontiguousarray(rows))
    named = kinds.__members__.get(type_name.upper().replace("-", "_"), kinds.UNDEFINED)
    kind = kinds.UNDEFINED if named == kinds.SIFT else named
    values = np.ascontiguousarray(rows, np.float32)
    return pycolmap.FeatureDescriptors(kind, values.view(np.uint8))


def write_descriptors(path: Path, type_name: str, read: ReadDescriptors) -> int:
    """Add the descriptors of images to a database.

    Args:
        path: of the database, which has none of these.
        type_name: of all descriptors.
        read: gives those of an image.

    Returns:
        How many.
    """
    count = 0
    with closing(pycolmap.Database.open(str(path))) as database:
        for image in database.read_all_images():
            keypoints = database.read_keypoints(image.image_id)
            rows = read(image.name, keypoints[:, :2])
            if rows is not None:
                found = colmap_descriptors(type_name, rows)
                database.write_descriptors(image.image_id, found)
                count += len(rows)
    return count
