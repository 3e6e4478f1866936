"""``.r2d2`` files: one image's features as a NumPy zip archive, without pickles.

The format of the published extractor (naver/r2d2, extract.py), which adds no
``settings``:

    keypoints    (N, 3) float32   x, y and patch side in pixels of the stored image,
                                  (0, 0) at the centre of its top-left pixel
    descriptors  (N, D) float32   unit L2 norm; float16, or uint8 as SIFT's
    scores       (N,) float32     higher is better
    imsize       (2,) int64       W, H of the stored image in pixels
    settings     () unicode       JSON of how the features were made
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import UNREADABLE, FeatureFormatError
from r2d2_kapture.io.features.fields import (
    WAY_OUT,
    features_from_fields,
    fields_from_features,
)
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import LocalFeatures


def write_npz(path: Path, features: LocalFeatures, settings: str = "") -> None:
    """Write the features of one image under exactly the name given.

    Raises:
        OutputError: the file system refused.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # a name would get .npz appended
        np.savez(file, **fields_from_features(features, settings))


def read_npz(path: Path) -> LocalFeatures:
    """Read the features of one image, best score first.

    Published files are worst first: their rows come back in another order.

    Raises:
        FeatureFormatError: absent, truncated, of another format, or lacking a field.
    """
    return features_from_fields(path, read_arrays(path))


def read_npz_settings(path: Path) -> str | None:
    """Read the settings of a file: None where it is absent, "" where it holds none.

    Reads the whole archive, so that an answer means a complete file.

    Raises:
        FeatureFormatError: truncated or of another format.
    """
    if not path.exists():
        return None
    arrays = read_arrays(path)
    return str(arrays["settings"]) if "settings" in arrays else ""


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an archive, ours or anyone's, by name.

    Raises:
        FeatureFormatError: absent, truncated or of another format.
    """
    if not path.exists():
        raise FeatureFormatError(f"{path}: found no such file, expected features")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("found a single array")
        with archive:
            return {name: _member(archive, name) for name in archive.files}
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise FeatureFormatError(
            f"{path}: cannot read as an archive of NumPy arrays: {reason}; {WAY_OUT}"
        ) from error


def _member(archive: np.lib.npyio.NpzFile, name: str) -> npt.NDArray[Any]:
    array = archive[name]
    # NumPy gives the bytes of a member that is no array, and elements of no bytes
    if not isinstance(array, np.ndarray) or array.nbytes < array.size:
        raise ValueError(f"found no array in its member '{name}'")
    return array
