"""Mutual nearest neighbours, the matcher of the protocols here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError

IndexArray = npt.NDArray[np.int64]

BLOCK_ROWS = 2048


def mutual_nearest_neighbours(
    descriptors1: npt.NDArray[np.float32],
    descriptors2: npt.NDArray[np.float32],
    images: tuple[str, str] = ("image 1", "image 2"),
) -> IndexArray:
    """Match descriptors that are each other's nearest neighbour by dot product.

    Args:
        descriptors1: (N, D) float32, unit L2 norm.
        descriptors2: (M, D) float32, unit L2 norm.
        images: names of the two, for the error.

    Returns:
        (K, 2) int64, rows of the first and of the second, ordered by the first; equal
        similarities go to the lower row, and a row of zeros matches nothing.

    Raises:
        FeatureFormatError: the dimensions of the descriptors differ.
    """
    if descriptors1.shape[1:] != descriptors2.shape[1:]:
        raise FeatureFormatError(
            f"descriptors of '{images[0]}' and '{images[1]}': found "
            f"{descriptors1.shape[1]} and {descriptors2.shape[1]} values each, "
            "expected equal lengths: features of one model"
        )
    if len(descriptors1) == 0 or len(descriptors2) == 0:
        return np.empty((0, 2), dtype=np.int64)
    columns = np.arange(len(descriptors2))
    nearest_in_2 = np.empty(len(descriptors1), dtype=np.int64)
    nearest_in_1 = np.zeros(len(descriptors2), dtype=np.int64)
    best = np.full(len(descriptors2), -np.inf, dtype=np.float32)
    # blocks of rows bound the memory: two images of 50 k features would take 10 GB
    for start in range(0, len(descriptors1), BLOCK_ROWS):
        similarity = descriptors1[start : start + BLOCK_ROWS] @ descriptors2.T
        nearest_in_2[start : start + BLOCK_ROWS] = similarity.argmax(axis=1)
        row = similarity.argmax(axis=0)
        block_best = similarity[row, columns]
        better = block_best > best
        best[better] = block_best[better]
        nearest_in_1[better] = row[better] + start
    rows = np.arange(len(descriptors1))
    mutual = nearest_in_1[nearest_in_2] == rows
    mutual &= descriptors1.any(1) & descriptors2[nearest_in_2].any(1)
    return np.column_stack([rows[mutual], nearest_in_2[mutual]])
