"""Depth maps of MegaDepth: HDF5 files with one array ``depth``.

Depth is along the camera's z axis in the units of the SfM model, 0 where unknown;
negative values mark the two sides of ordinal pairs and are not depths (Li & Snavely,
MegaDepth, CVPR 2018, section 3).
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from r2d2_kapture.errors import UNREADABLE, DatasetError
from r2d2_kapture.types import FloatArray

DATASET = "depth"


def read_depth(path: Path, size: tuple[int, int]) -> FloatArray:
    """Read a depth map.

    Args:
        path: of the file.
        size: (W, H) of its image in pixels.

    Returns:
        (H, W) float32; above 0 where depth is known.

    Raises:
        DatasetError: missing, truncated, of another format, or of another size.
    """
    try:
        with h5py.File(path, "r") as file:
            dataset = file[DATASET]
            # a broken header may state more data than fits into memory
            if dataset.shape != size[::-1]:
                raise DatasetError(
                    f"{path}: found '{DATASET}' of shape (H, W) {dataset.shape}, "
                    f"expected {size[::-1]} like its image"
                )
            return np.asarray(dataset.astype(np.float32)[()])
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: not a readable depth map ({reason}), expected HDF5 with an array "
            f"'{DATASET}'; download it again"
        ) from error
