"""MATLAB files (version 5, uncompressed) of one image's features.

The fields of the ``.r2d2`` format, scalars and vectors as MATLAB columns:

    keypoints    (N, 3) single    x, y and patch side in pixels of the stored image,
                                  (0, 0) at the centre of its top-left pixel, so that
                                  MATLAB's own image axes need 1 added to x and y
    descriptors  (N, D) single    unit L2 norm, or uint8 as SIFT's
    scores       (N, 1) single    higher is better; (0, 0) when absent
    imsize       (2, 1) int64     W, H of the stored image in pixels
    settings     char             JSON of how the features were made

They are written only; of existing files, the settings at the end of ours are read.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from scipy.io import savemat

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.fields import WAY_OUT, fields_from_features
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import LocalFeatures

MAGIC = b"MATLAB"
SETTINGS = struct.pack("=II8s", 1, 8, b"settings")
"""Name of the last array, as an element: type of 8 bit numbers, length, content.
Source: MathWorks, MAT-File Format, "Level 5 MAT-Files"."""


def write_mat(path: Path, features: LocalFeatures, settings: str = "") -> None:
    """Write the features of one image under exactly the name given.

    Raises:
        OutputError: the file system refused.
    """
    fields = fields_from_features(features, settings)
    if features.descriptors.dtype == np.float16:  # which MATLAB files do not have
        fields["descriptors"] = features.unit_descriptors
    with atomic_path(path) as temporary:
        savemat(
            temporary, fields, appendmat=False, do_compression=False, oned_as="column"
        )


def read_mat_settings(path: Path) -> str | None:
    """Read the settings of a file of ours: None where it is absent, "" of others.

    Raises:
        FeatureFormatError: truncated or of another format.
    """
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        if not data.startswith(MAGIC):
            raise ValueError("found no header")
        _, found, element = data.rpartition(SETTINGS)
        return _text(element) if found else ""
    except (OSError, ValueError, struct.error) as error:
        raise FeatureFormatError(
            f"{path}: cannot read as a MATLAB 5 file: {error}; {WAY_OUT}"
        ) from error


def _text(element: bytes) -> str:
    """The text of an element, whose first four bytes lie in its tag if short."""
    kind, size = struct.unpack_from("=II", element)
    start, size = (4, kind >> 16) if kind >> 16 else (8, size)
    if len(element) < start + size:
        raise ValueError("found truncated settings")
    return element[start : start + size].decode("utf-8")
