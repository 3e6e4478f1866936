"""The fields of one image's features, as `.r2d2` and `.mat` files name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.types import LocalFeatures

FIELDS = ("keypoints", "descriptors", "scores", "imsize")
WAY_OUT = "make the file again with the tool that wrote it"


def fields_from_features(features: LocalFeatures, settings: str) -> dict[str, Any]:
    """The arrays to write: keypoints (N, 3), descriptors, scores, imsize, settings."""
    return {
        "keypoints": features.keypoints_with_scale,
        "descriptors": features.descriptors,
        "scores": features.scores,
        "imsize": np.array(features.image_size, dtype=np.int64),
        "settings": np.array(settings),
    }


def require_fields(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse a file that lacks a field.

    Raises:
        FeatureFormatError: naming the file and what it lacks.
    """
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise FeatureFormatError(
            f"{path}: found no {', '.join(missing)}, expected {', '.join(FIELDS)}; "
            f"{WAY_OUT}"
        )


def checked_image_size(values: npt.NDArray[Any]) -> tuple[int, int]:
    """(W, H) in pixels of an array that was read.

    Raises:
        FeatureFormatError: not two numbers from 1 on.
    """
    size = np.asarray(values, dtype=np.float64)
    if size.shape != (2,) or not (np.isfinite(size) & (size >= 1)).all():
        found = (
            size.tolist() if size.shape == (2,) else f"numbers of shape {size.shape}"
        )
        raise FeatureFormatError(
            f"image size: found {found}, expected width and height in pixels"
        )
    return int(size[0]), int(size[1])


def features_from_fields(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]]
) -> LocalFeatures:
    """Features of arrays that were read, best score first.

    Raises:
        FeatureFormatError: a field is missing, or shapes disagree.
    """
    require_fields(path, arrays)
    try:
        keypoints = arrays["keypoints"].astype(np.float32)
        if keypoints.ndim != 2 or keypoints.shape[1] != 3:
            raise FeatureFormatError(
                f"keypoints: found {keypoints.shape}, expected (N, 3)"
            )
        return LocalFeatures(
            keypoints=keypoints[:, :2],
            scales=keypoints[:, 2],
            scores=arrays["scores"].astype(np.float32),
            descriptors=arrays["descriptors"].astype(np.float32),
            image_size=checked_image_size(arrays["imsize"]),
        ).best_first()
    except (ValueError, TypeError, FeatureFormatError) as error:
        raise FeatureFormatError(f"{path}: {error}; {WAY_OUT}") from error
