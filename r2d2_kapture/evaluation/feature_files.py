"""Third-party features, read from files next to their images or from one HDF5 file."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import numpy as np

from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.features.fields import WAY_OUT, features_from_fields
from r2d2_kapture.io.features.hdf5 import read_h5
from r2d2_kapture.io.features.npz import read_arrays
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.types import LocalFeatures, unit_rows


def feature_path(image: Path, suffix: str) -> Path:
    """Where the features of an image are: ``1.ppm`` -> ``1.ppm.d2-net``."""
    return image.with_name(f"{image.name}.{suffix.lstrip('.')}")


def read_feature_file(path: Path, image: Path) -> LocalFeatures:
    """Read a NumPy archive (.r2d2, .d2-net) of one image's features.

    Files of D2-Net hold no image size; it
    is then taken from the image. Their benchmark's hold no scores either: the rows are
    then best first. Descriptors are scaled to unit norm.

    Args:
        path: of the features.
        image: that they belong to.

    Raises:
        FeatureFormatError: absent, of another format, or lacking a field, or holding
            values that are not finite.
        ImageError: the image's size is needed and cannot be read.
    """
    if not path.is_file():
        raise FeatureFormatError(
            f"{path}: found no such file, expected the features of {image.name}"
        )
    arrays = read_arrays(path)
    if "imsize" not in arrays:
        arrays["imsize"] = np.array(image_size(image))
    arrays = arrays | {
        n: arrays[n].ravel() for n in ("scores", "imsize") if n in arrays
    }
    features = features_from_fields(path, arrays)
    _require_finite(str(path), features)
    return _with_unit_descriptors(features)


def read_h5_features(
    path: Path, name: str, image: Path | None = None, *, as_stored: bool = False
) -> LocalFeatures:
    """Read the features of one image from a file of hloc's layout, ours or anyone's.

    Args:
        path: of the features.
        name: of the image in the file.
        image: that they belong to, for files that hold no image size.
        as_stored: see read_h5.

    Raises:
        FeatureFormatError: absent, of another format, without the image, or holding
            values that are not finite; no size of the image in the file or the image.
    """
    size = None
    if image is not None:
        with suppress(ImageError):
            size = image_size(image)
    features = read_h5(path, name, size, as_stored=as_stored)
    _require_finite(f"{path}: image '{name}'", features)
    return _with_unit_descriptors(features)


def _with_unit_descriptors(features: LocalFeatures) -> LocalFeatures:
    return dataclasses.replace(features, descriptors=unit_rows(features.descriptors))


def _require_finite(source: str, features: LocalFeatures) -> None:
    for name in ("keypoints", "scales", "scores", "descriptors"):
        finite = np.isfinite(getattr(features, name))
        broken = np.count_nonzero(~finite.all(axis=tuple(range(1, finite.ndim))))
        if broken:
            raise FeatureFormatError(
                f"{source}: {name}: found NaN or infinity in {broken} of "
                f"{len(features)} rows, expected finite numbers; {WAY_OUT}"
            )
