"""MATLAB files (version 5, uncompressed) of one image's features.

The fields of the ``.r2d2`` format, scalars and vectors as MATLAB columns:

    keypoints    (N, 3) single    x, y and patch side in pixels of the stored image,
                                  (0, 0) at the centre of its top-left pixel, so that
                                  MATLAB's own image axes need 1 added to x and y
    descriptors  (N, D) single    unit L2 norm
    scores       (N, 1) single    higher is better; (0, 0) when absent
    imsize       (2, 1) int64     W, H of the stored image in pixels
    settings     char             JSON of how the features were made
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import savemat

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.fields import (
    WAY_OUT,
    features_from_fields,
    fields_from_features,
    require_fields,
)
from r2d2_kapture.io.features.mat5 import plain_arrays
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import LocalFeatures


def write_mat(path: Path, features: LocalFeatures, settings: str = "") -> None:
    """Write the features of one image under exactly the name given.

    Raises:
        OutputError: the file system refused.
    """
    fields = fields_from_features(features, settings)
    with atomic_path(path) as temporary:
        savemat(
            temporary, fields, appendmat=False, do_compression=False, oned_as="column"
        )


def read_mat(path: Path) -> LocalFeatures:
    """Read the features of one image, best score first.

    Raises:
        FeatureFormatError: absent, truncated, of another format, or lacking a field.
    """
    return features_from_fields(path, read_arrays(path))


def read_mat_settings(path: Path) -> str | None:
    """Read the settings of a file: None where it is absent, "" where it holds none.

    Raises:
        FeatureFormatError: truncated or of another format.
    """
    if not path.exists():
        return None
    arrays = read_arrays(path)
    # MATLAB files have no end mark: one cut between fields still reads
    require_fields(path, arrays)
    settings = arrays.get("settings", np.array([]))
    return str(settings.item()) if settings.size == 1 else ""


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays and texts of a file, ours or anyone's, by name.

    Raises:
        FeatureFormatError: absent, truncated or of another format.
    """
    try:
        arrays = plain_arrays(path.read_bytes())
    except (OSError, ValueError, zlib.error) as error:
        raise FeatureFormatError(
            f"{path}: cannot read as a MATLAB 5 file: {error}; {WAY_OUT}"
        ) from error
    # MATLAB keeps vectors as matrices of one row or column
    vectors = {n: arrays[n].ravel() for n in ("scores", "imsize") if n in arrays}
    return arrays | vectors
