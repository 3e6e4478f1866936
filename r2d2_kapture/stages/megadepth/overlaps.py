"""Overlap of the images of an SfM model, from the 3D points that they observe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from r2d2_kapture.types import FloatArray, IndexArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PointsSeen:
    """The points that an image observes.

    Attributes:
        rows: (K,) of the points, ascending, each once.
        normalised_depths: (K,) z / f of each: the inverse of its scale in the image.
    """

    rows: IndexArray
    normalised_depths: DoubleArray


def compare_images(
    images: Sequence[PointsSeen], point_count: int
) -> tuple[FloatArray, FloatArray]:
    """Compute overlaps and scale ratios of all pairs of images.

    Args:
        images: N images; each observes a point.
        point_count: of the model.

    Returns:
        (N, N) share of the points of i that j sees too, and (N, N) normalised depth in
        i over that in j: the geometric mean over the points that both see, 0 where
        there are none.
    """
    rows = np.concatenate([image.rows for image in images])
    owners = np.repeat(np.arange(len(images)), [len(image.rows) for image in images])
    logs = np.log(np.concatenate([image.normalised_depths for image in images]))
    shape = (len(images), point_count)
    seen = csr_array((np.ones(len(rows)), (owners, rows)), shape=shape)
    depths = csr_array((logs, (owners, rows)), shape=shape)
    shared = (seen @ seen.T).toarray()
    overlaps = shared / np.diag(shared)[:, None]
    # sum over the common points of log z_i - log z_j
    own = (depths @ seen.T).toarray()
    mean = (own - own.T) / np.maximum(shared, 1)
    scale_ratios = np.where(shared > 0, np.exp(mean), 0)
    return overlaps.astype(np.float32), scale_ratios.astype(np.float32)
