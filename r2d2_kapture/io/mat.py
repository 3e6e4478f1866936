"""MATLAB files (version 5, uncompressed) of one image's features.

The fields of the ``.r2d2`` format, scalars and vectors as MATLAB columns:

    keypoints    (N, 3) single    x, y and patch side in pixels of the stored image,
                                  (0, 0) at the centre of its top-left pixel, so that
                                  MATLAB's own image axes need 1 added to x and y
    descriptors  (N, D) single    unit L2 norm
    scores       (N, 1) single    higher is better; (0, 0) when there is none
    imsize       (2, 1) int64     W, H of the stored image in pixels
    settings     char             JSON of how the features were made
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat, savemat
from scipy.io.matlab import MatReadError

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.atomic import atomic_path
from r2d2_kapture.types import LocalFeatures

FIELDS = ("keypoints", "descriptors", "scores", "imsize")
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    MatReadError,
)
"""What SciPy raises on a file that is truncated or is something else."""


def write_mat(path: Path, features: LocalFeatures, settings: str = "") -> None:
    """Write the features of one image under exactly the name given.

    Raises:
        OutputError: the file system refused.
    """
    fields = {
        "keypoints": features.keypoints_with_scale,
        "descriptors": features.descriptors,
        "scores": features.scores,
        "imsize": np.array(features.image_size, dtype=np.int64),
        "settings": settings,
    }
    with atomic_path(path) as temporary:
        savemat(
            temporary, fields, appendmat=False, do_compression=False, oned_as="column"
        )


def read_mat(path: Path) -> LocalFeatures:
    """Read the features of one image, best score first.

    Raises:
        FeatureFormatError: absent, truncated, of another format, or lacking a field.
    """
    arrays = _read_arrays(path)
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise FeatureFormatError(
            f"{path}: found no {', '.join(missing)}, expected {', '.join(FIELDS)}; "
            "extract the image again"
        )
    try:
        keypoints = arrays["keypoints"].astype(np.float32)
        if keypoints.ndim != 2 or keypoints.shape[1] != 3:
            raise FeatureFormatError(
                f"keypoints: found {keypoints.shape}, expected (N, 3)"
            )
        width, height = arrays["imsize"].ravel().astype(np.int64)
        return LocalFeatures(
            keypoints=keypoints[:, :2],
            scales=keypoints[:, 2],
            scores=arrays["scores"].ravel().astype(np.float32),
            descriptors=arrays["descriptors"].astype(np.float32),
            image_size=(int(width), int(height)),
        ).best_first()
    except (ValueError, TypeError, FeatureFormatError) as error:
        raise FeatureFormatError(f"{path}: {error}; extract the image again") from error


def read_mat_settings(path: Path) -> str | None:
    """Read the settings of a file: None where it is absent, "" where it holds none.

    Raises:
        FeatureFormatError: truncated or of another format.
    """
    if not path.exists():
        return None
    arrays = _read_arrays(path)
    missing = [name for name in FIELDS if name not in arrays]
    if missing:  # MATLAB files have no end mark: one cut between fields still reads
        raise FeatureFormatError(
            f"{path}: found no {', '.join(missing)}, expected {', '.join(FIELDS)}; "
            "delete it and extract the image again"
        )
    settings = arrays.get("settings", np.array([]))
    return str(settings.item()) if settings.size == 1 else ""


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        fields = loadmat(path, appendmat=False)
    except UNREADABLE as error:
        raise FeatureFormatError(
            f"{path}: cannot read as a MATLAB 5 file: {error}; "
            "delete it and extract the image again"
        ) from error
    return {name: array for name, array in fields.items() if name[:2] != "__"}
