"""Reads features and matches that lie in a kapture dataset, ours or anyone's."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import kapture.io.features as kfeatures
import numpy as np
import numpy.typing as npt
from kapture.io.tar import TarCollection

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture import (
    Dataset,
    check_relative_name,
    open_dataset,
)
from r2d2_kapture.types import PATCH_DIAMETER, LocalFeatures

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class FeatureReader:
    """Keypoints, and where asked for descriptors, of one feature type.

    Not thread safe: kapture's tar handlers share one file position.

    Attributes:
        dataset: that holds them.
        keypoints_type: name of the keypoints.
        descriptors_type: name of the descriptors; None where there are none.
        tars: opened archives.
    """

    dataset: Dataset
    keypoints_type: str
    descriptors_type: str | None
    tars: TarCollection

    @property
    def image_names(self) -> tuple[str, ...]:
        """Images of the dataset that have keypoints, in order of time."""
        found = self._keypoints()
        return tuple(name for name in self.dataset.image_names if name in found)

    def keypoints(self, image: str) -> Array:
        """(N, C) float32: x, y, then the patch size in pixels where C is 3 or more.

        Raises:
            FeatureFormatError: absent, or of a size that is no whole number of rows.
        """
        config = self._keypoints()
        path = kfeatures.get_keypoints_fullpath(
            self.keypoints_type, str(self.dataset.root), image, self.tars
        )
        return self._read(kfeatures.image_keypoints_from_file, path, config, image)

    def descriptors(self, image: str) -> Array:
        """(N, D) float32.

        Raises:
            FeatureFormatError: as for keypoints, or not one row a keypoint.
        """
        config = self.dataset.data.descriptors[self.descriptors_type]
        path = kfeatures.get_descriptors_fullpath(
            self.descriptors_type, str(self.dataset.root), image, self.tars
        )
        return self._read(kfeatures.image_descriptors_from_file, path, config, image)

    def features(self, image: str, image_size: tuple[int, int]) -> LocalFeatures:
        """Keypoints and descriptors together; kapture keeps no scores, so they are 0.

        Raises:
            FeatureFormatError: keypoints and descriptors disagree in number.
        """
        keypoints, descriptors = self.keypoints(image), self.descriptors(image)
        if len(keypoints) != len(descriptors):
            raise FeatureFormatError(
                f"{image}: found {len(keypoints)} keypoints and {len(descriptors)} "
                "descriptors, expected as many; extract the image again"
            )
        scales = (
            keypoints[:, 2]
            if keypoints.shape[1] > 2
            else np.full(len(keypoints), PATCH_DIAMETER, np.float32)
        )
        return LocalFeatures(
            keypoints=np.ascontiguousarray(keypoints[:, :2]),
            scales=np.ascontiguousarray(scales),
            scores=np.zeros(len(keypoints), np.float32),
            descriptors=descriptors,
            image_size=image_size,
        )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of images that have matches between these keypoints, sorted."""
        matches = self.dataset.data.matches or {}
        return sorted(matches.get(self.keypoints_type, set()))

    def matches(self, image1: str, image2: str) -> Array:
        """(K, 3) float64: keypoint of image 1, keypoint of image 2, score."""
        path = kfeatures.get_matches_fullpath(
            (image1, image2), self.keypoints_type, str(self.dataset.root), self.tars
        )
        try:
            found: Array = kfeatures.image_matches_from_file(path)
        except (OSError, ValueError, KeyError, AssertionError) as error:
            raise FeatureFormatError(
                f"matches of {image1} and {image2}: cannot be read ({error}); match "
                "the pair again"
            ) from error
        return found

    def _keypoints(self) -> kapture.Keypoints:
        return self.dataset.data.keypoints[self.keypoints_type]

    def _read(self, read: Any, path: Any, config: Any, image: str) -> Array:
        row_bytes = config.dsize * np.dtype(config.dtype).itemsize
        expected = (
            f"{image}: expected {config.type_name} as rows of {config.dsize} "
            f"{config.dtype.__name__}"
        )
        try:
            # numpy would drop a last, broken row of a file
            if isinstance(path, str) and os.path.getsize(path) % row_bytes:
                raise FeatureFormatError(
                    f"{expected}, found {os.path.getsize(path)} bytes; extract it again"
                )
            rows = np.array(read(path, config.dtype, config.dsize), dtype=np.float32)
        except (OSError, ValueError, KeyError) as error:
            raise FeatureFormatError(
                f"{expected} ({error}); extract it again"
            ) from error
        if not np.isfinite(rows).all():
            raise FeatureFormatError(f"{expected}, found NaN or infinity")
        return rows


@contextmanager
def open_features(
    root: Path,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    *,
    need_descriptors: bool,
) -> Iterator[FeatureReader]:
    """Open one feature type of a dataset, by name, or the only one there is.

    Args:
        root: of the dataset.
        keypoints_type, descriptors_type: names; None takes the only one.
        need_descriptors: whether to look for descriptors at all.

    Raises:
        DatasetError: the type is not there, there are several, or a name is unsafe.
    """
    try:
        handlers = kcsv.get_all_tar_handlers(str(root))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DatasetError(f"{root}: an archive cannot be read: {error}") from error
    with handlers as tars:
        dataset = open_dataset(root, tars)
        keypoints = _choose(root, "keypoints", dataset.data.keypoints, keypoints_type)
        descriptors = None
        if need_descriptors:
            fitting = {
                name: item
                for name, item in (dataset.data.descriptors or {}).items()
                if item.keypoints_type == keypoints
            }
            descriptors = _choose(root, "descriptors", fitting, descriptors_type)
        for name in dataset.data.keypoints[keypoints]:
            check_relative_name(name, root / "reconstruction" / "keypoints" / keypoints)
        yield FeatureReader(
            dataset=dataset,
            keypoints_type=keypoints,
            descriptors_type=descriptors,
            tars=tars,
        )


def _choose(root: Path, kind: str, found: Any, wanted: str | None) -> str:
    names = sorted(found or {})
    if wanted is None and len(names) == 1:
        return str(names[0])
    if wanted is not None and wanted in names:
        return wanted
    listed = ", ".join(names) or "none"
    if wanted is not None:
        raise DatasetError(f"{root}: found {kind} types {listed}, expected '{wanted}'")
    way_out = f"choose one with --{kind}-type" if names else "extract features first"
    raise DatasetError(f"{root}: found {kind} types {listed}; {way_out}")
