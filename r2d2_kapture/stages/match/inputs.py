"""Inputs of a matcher, read from kapture features."""

from __future__ import annotations

import numpy as np
import torch

from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.io.kapture.feature_provenance import FeatureRecords
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.matching.matcher import MatchInput


class InputReader:
    """Reads features onto a device.

    Args:
        tables: of keypoints and descriptors.
        device: of the matcher.
        with_keypoints: read keypoints too.
    """

    def __init__(
        self, tables: LocalFeatureTables, device: torch.device, *, with_keypoints: bool
    ) -> None:
        self._tables = tables
        self._device = device
        self._records = FeatureRecords(tables.keypoints) if with_keypoints else None

    def __call__(self, image: str) -> MatchInput:
        """The features of an image; kapture stores no scores.

        Raises:
            FeatureFormatError: as LocalFeatureTables.read_descriptors.
        """
        descriptors = torch.from_numpy(self._tables.read_descriptors(image))
        descriptors = descriptors.to(self._device)
        if self._records is None:
            return MatchInput(descriptors=descriptors)
        rows = self._tables.keypoints.read(image)
        xy = torch.from_numpy(np.ascontiguousarray(rows[:, :2]))
        return MatchInput(
            descriptors=descriptors,
            keypoints=xy.to(self._device),
            scales=torch.from_numpy(patch_sides(rows)).to(self._device),
            image_size=self._records.size(image),
        )
