"""The fields of one image's features, as `.r2d2` and `.mat` files name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.types import FloatArray, LocalFeatures, unit_rows

FIELDS = ("keypoints", "descriptors", "imsize")
"""What a file must have; without scores, features are in the order of the file."""
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


def _require_fields(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
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


def features_from_rows(
    keypoints: FloatArray,
    descriptors: npt.NDArray[Any],
    scores: npt.NDArray[Any] | None,
    image_size: tuple[int, int],
    sides: npt.NDArray[Any] | None = None,
) -> LocalFeatures:
    """Features of rows that were read, best score first.

    Args:
        keypoints: (N, C), see features/reading.py.
        descriptors: (N, D) of any dtype; bytes are brought to unit norm.
        scores: (N,); None: the rows are in their order already.
        image_size: (W, H) in pixels.
        sides: (N,) of patches in pixels; None: they are among the columns.

    Raises:
        FeatureFormatError: shapes disagree.
    """
    if keypoints.ndim != 2 or keypoints.shape[1] < 2:
        raise FeatureFormatError(
            f"keypoints: found {keypoints.shape}, expected (N, 2) or more columns"
        )
    if scores is None:
        scores = np.zeros(len(keypoints))
    return LocalFeatures(
        keypoints=keypoints[:, :2],
        scales=(patch_sides(keypoints) if sides is None else sides).astype(np.float32),
        scores=scores.astype(np.float32),
        descriptors=(
            unit_rows(descriptors)
            if descriptors.dtype == np.uint8
            else descriptors.astype(np.float32)
        ),
        image_size=image_size,
    ).best_first()


def features_from_fields(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]]
) -> LocalFeatures:
    """Features of arrays that were read, best score first.

    Raises:
        FeatureFormatError: a field is missing, or shapes disagree.
    """
    _require_fields(path, arrays)
    try:
        keypoints = arrays["keypoints"].astype(np.float32)
        return features_from_rows(
            keypoints,
            arrays["descriptors"],
            arrays.get("scores"),
            checked_image_size(arrays["imsize"]),
        )
    except (ValueError, TypeError, FeatureFormatError) as error:
        raise FeatureFormatError(f"{path}: {error}; {WAY_OUT}") from error
