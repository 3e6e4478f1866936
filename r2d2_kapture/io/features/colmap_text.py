"""COLMAP's text features: ``<image name>.txt``, as ``colmap feature_importer`` reads.

The first line is ``N 128``; then one line per keypoint:

    x y scale orientation d_1 ... d_128

x, y         pixels, (0, 0) at the corner of the top-left pixel
scale        sigma in pixels of the SIFT keypoint whose window has the side of our
             patch: SIFT describes 4 x 4 cells of 3 sigma each, so sigma = side / 12
orientation  radians; 0 of keypoints that have none, such as ours
d            0 to 255: round(127.5 * (d + 1)) of the unit-norm float, an affine map
             under which nearest neighbours stay nearest neighbours; bytes, such as
             SIFT of COLMAP, as they are

Source: https://colmap.github.io/tutorial.html, section on importing features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.reading import PATCH_SIGMAS
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.types import FloatArray, LocalFeatures

DESCRIPTOR_DIM = 128
HALF_RANGE = 127.5
"""Levels of a byte on either side of a descriptor value of zero."""

ROW_FORMAT = "%.4f %.4f %.4f %.6g" + " %d" * DESCRIPTOR_DIM + "\n"


def write_colmap_text(
    path: Path,
    features: LocalFeatures,
    *,
    orientations: FloatArray | None = None,
    stored: npt.NDArray[Any] | None = None,
) -> None:
    """Write the features of one image; name the file ``<image name>.txt``.

    Args:
        path: of the file.
        features: of the image.
        orientations: (N,) of the keypoints in radians; None: all 0.
        stored: (N, 128) descriptors as they were read, None: those of the features;
            bytes are written as they are.

    Raises:
        FeatureFormatError: descriptors are not of 128 values.
        OutputError: the file system refused.
    """
    count, dim = features.descriptors.shape
    if dim != DESCRIPTOR_DIM:
        raise FeatureFormatError(
            f"{path}: found descriptors of {dim} values, COLMAP's text format holds "
            f"only {DESCRIPTOR_DIM}; choose another format, such as h5"
        )
    stored = features.descriptors if stored is None else stored
    if stored.dtype == np.uint8:
        levels = stored.astype(np.float64)
    else:
        levels = np.rint(HALF_RANGE * (features.descriptors.astype(np.float64) + 1))
    rows = np.column_stack(
        [
            colmap_from_kapture(features.keypoints.astype(np.float64)),
            features.scales / PATCH_SIGMAS,
            np.zeros(count) if orientations is None else orientations,
            levels.clip(0, 255),
        ]
    )
    lines = [ROW_FORMAT % tuple(row) for row in rows.tolist()]
    write_text_atomic(path, f"{count} {DESCRIPTOR_DIM}\n" + "".join(lines))
