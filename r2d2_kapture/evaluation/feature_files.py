"""Features of others, read from files beside their images or from one HDF5 file."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io import mat, npz
from r2d2_kapture.io.fields import features_from_fields
from r2d2_kapture.io.hdf5 import read_h5
from r2d2_kapture.io.images import image_size
from r2d2_kapture.types import LocalFeatures

UNIT_TOLERANCE = 1e-3
"""How far from 1 a norm may be: descriptors in float16 pass."""


def feature_path(image: Path, suffix: str) -> Path:
    """Where the features of an image are: ``1.ppm`` -> ``1.ppm.d2-net``."""
    return image.with_name(f"{image.name}.{suffix.lstrip('.')}")


def read_feature_file(path: Path, image: Path) -> LocalFeatures:
    """Read a NumPy archive (.r2d2, .d2-net) or a MATLAB file of one image's features.

    The content tells which it is, not the name. Files of D2-Net hold no image size; it
    is then taken from the image. Descriptors are scaled to unit norm.

    Args:
        path: of the features.
        image: that they belong to.

    Raises:
        FeatureFormatError: absent, of another format, or lacking a field.
        ImageError: the image's size is needed and cannot be read.
    """
    if not path.is_file():
        raise FeatureFormatError(
            f"{path}: found no such file, expected the features of {image.name}"
        )
    arrays = _read_archive(path) if zipfile.is_zipfile(path) else _read_matlab(path)
    if "imsize" not in arrays:
        arrays["imsize"] = np.array(image_size(image))
    arrays = arrays | {
        n: arrays[n].ravel() for n in ("scores", "imsize") if n in arrays
    }
    return with_unit_descriptors(features_from_fields(path, arrays))


def read_h5_features(path: Path, name: str) -> LocalFeatures:
    """Read the features of one image from a file of hloc's layout, ours or anyone's.

    Raises:
        FeatureFormatError: absent, of another format, or without the image.
    """
    return with_unit_descriptors(read_h5(path, name))


def with_unit_descriptors(features: LocalFeatures) -> LocalFeatures:
    """The same features, their descriptors of unit L2 norm; zeros stay zeros."""
    norms = np.linalg.norm(features.descriptors, axis=1, keepdims=True)
    if np.all(np.abs(norms - 1) < UNIT_TOLERANCE):
        return features
    scaled = features.descriptors / np.where(norms > 0, norms, 1)
    return dataclasses.replace(features, descriptors=scaled.astype(np.float32))


def _read_archive(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except npz.UNREADABLE as error:
        raise FeatureFormatError(f"{path}: cannot be read: {error}") from error


def _read_matlab(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        return dict(loadmat(path, appendmat=False))
    except mat.UNREADABLE as error:
        raise FeatureFormatError(
            f"{path}: cannot be read as a NumPy archive or a MATLAB file: {error}"
        ) from error
