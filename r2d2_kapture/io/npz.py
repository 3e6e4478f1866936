"""``.r2d2`` files: one image's features as a NumPy zip archive, without pickles.

The format of the published extractor (naver/r2d2, extract.py), which adds no
``settings``:

    keypoints    (N, 3) float32   x, y and patch side in pixels of the stored image,
                                  (0, 0) at the centre of its top-left pixel
    descriptors  (N, D) float32   unit L2 norm
    scores       (N,) float32     higher is better
    imsize       (2,) int64       W, H of the stored image in pixels
    settings     () unicode       JSON of how the features were made
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.atomic import atomic_path
from r2d2_kapture.types import LocalFeatures

FIELDS = ("keypoints", "descriptors", "scores", "imsize")
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on a file that is truncated or is something else."""


def write_npz(path: Path, features: LocalFeatures, settings: str = "") -> None:
    """Write the features of one image under exactly the name given.

    Raises:
        OutputError: the file system refused.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,  # a name would get .npz appended
            keypoints=features.keypoints_with_scale,
            descriptors=features.descriptors,
            scores=features.scores,
            imsize=np.array(features.image_size, dtype=np.int64),
            settings=np.array(settings),
        )


def read_npz(path: Path) -> LocalFeatures:
    """Read the features of one image, best score first.

    Published files are worst first: their rows come back in another order.

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
        width, height = arrays["imsize"].astype(np.int64)
        return LocalFeatures(
            keypoints=keypoints[:, :2],
            scales=keypoints[:, 2],
            scores=arrays["scores"].astype(np.float32),
            descriptors=arrays["descriptors"].astype(np.float32),
            image_size=(int(width), int(height)),
        ).best_first()
    except (ValueError, TypeError, FeatureFormatError) as error:
        raise FeatureFormatError(f"{path}: {error}; extract the image again") from error


def read_npz_settings(path: Path) -> str | None:
    """Read the settings of a file: None where it is absent, "" where it holds none.

    Reads the whole archive, so that an answer means a complete file.

    Raises:
        FeatureFormatError: truncated or of another format.
    """
    if not path.exists():
        return None
    arrays = _read_arrays(path)
    return str(arrays["settings"]) if "settings" in arrays else ""


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise FeatureFormatError(
                f"{path}: found a single array, expected a zip archive of "
                f"{', '.join(FIELDS)}"
            )
        with archive:
            return {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise FeatureFormatError(
            f"{path}: cannot read as a .r2d2 (NumPy zip) file: {error}; "
            "delete it and extract the image again"
        ) from error
