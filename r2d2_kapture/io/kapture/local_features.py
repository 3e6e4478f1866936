"""Keypoints of kapture with the descriptors that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.reading import (
    check_inside,
    check_metric,
    patch_sides,
)
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.refined_features import open_extracted
from r2d2_kapture.types import FloatArray, LocalFeatures, unit_rows


@dataclass(frozen=True, kw_only=True)
class LocalFeatureTables:
    """Keypoints with their descriptors.

    Both are taken from one root: rows of two extractions would not belong together.

    Attributes:
        keypoints: (N, C) rows, see features/reading.py; (0, 0) is the centre of the
            top-left pixel.
        descriptors: (N, D) rows.
        extracted: keypoints that others were refined from, with which their descriptors
            lie; None where keypoints are not refined.
    """

    keypoints: FeatureTable
    descriptors: FeatureTable
    extracted: FeatureTable | None = None

    def read_descriptors(self, image: str) -> FloatArray:
        """(N, D) float32 of unit L2 norm or zeros, one row a keypoint.

        Raises:
            FeatureFormatError: as check_counts, or not finite.
        """
        self.check_counts(image)
        return unit_rows(self.beside_keypoints(image).read_stored(image))

    def check_counts(self, image: str) -> None:
        """Check, by the sizes of files alone, that each keypoint has a descriptor.

        Raises:
            FeatureFormatError: as beside_keypoints, absent, no whole number of rows, or
                counts that disagree.
        """
        keypoints = self.keypoints.count(image)
        descriptors = self.beside_keypoints(image).count(image)
        if descriptors != keypoints:
            raise FeatureFormatError(
                f"'{image}': found {keypoints} keypoints and {descriptors} "
                "descriptors, expected equal numbers; extract the image again"
            )

    def beside_keypoints(self, image: str) -> FeatureTable:
        """The part of the descriptors that lies with the keypoints of an image.

        Raises:
            FeatureFormatError: that part lacks the image.
        """
        located = (self.extracted or self.keypoints).locate(image)
        if located is None:
            return self.descriptors
        folder = located[0]
        beside = self.descriptors.below(folder.root)
        if beside is None or image not in beside:
            raise FeatureFormatError(
                f"'{image}': found keypoints in {folder.path}, but no descriptors of "
                f"type '{self.descriptors.type_name}' below {folder.root}, expected "
                "both of one extraction; extract the image there, or leave that "
                "folder out of --features"
            )
        return beside

    def read(self, image: str, image_size: tuple[int, int]) -> LocalFeatures:
        """Keypoints and descriptors together; kapture keeps no scores, so they are 0.

        Args:
            image: its name.
            image_size: (W, H) in pixels.

        Raises:
            FeatureFormatError: as read_descriptors and check_inside.
        """
        keypoints = self.keypoints.read(image)
        check_inside(keypoints, image_size, f"'{image}'")
        return LocalFeatures(
            keypoints=np.ascontiguousarray(keypoints[:, :2]),
            scales=patch_sides(keypoints),
            scores=np.zeros(len(keypoints), np.float32),
            descriptors=self.read_descriptors(image),
            image_size=image_size,
        )


def open_local_features(
    roots: Sequence[Path],
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
) -> LocalFeatureTables:
    """Open keypoints and the descriptors that belong to them.

    Refined keypoints have the descriptors of those that they were refined from.

    Args:
        roots: see open_feature_table.
        keypoints_type, descriptors_type: names; None takes the only one there is.

    Raises:
        DatasetError: as open_feature_table, or the descriptors belong to other
            keypoints.
        FeatureFormatError: descriptors that are compared by neither L2 nor cosine.
    """
    keypoints = open_feature_table(roots, "keypoints", keypoints_type)
    extracted = open_extracted(keypoints, roots)
    owner = keypoints if extracted is None else extracted
    descriptors = open_feature_table(
        roots, "descriptors", descriptors_type, keypoints_type=owner.type_name
    )
    for folder in descriptors.folders:
        check_metric(folder.metric, str(folder.path / "descriptors.txt"))
    return LocalFeatureTables(
        keypoints=keypoints, descriptors=descriptors, extracted=extracted
    )
