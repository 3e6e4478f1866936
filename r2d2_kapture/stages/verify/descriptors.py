"""The descriptors that guided matching compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.feature_provenance import feature_states
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class DescriptorSource:
    """Descriptors of the keypoints of images.

    Attributes:
        read: returns those of an image, (N, D) float32 of unit L2 norm or zeros.
        states: what changes with them, by image.
        files: that they are in.
    """

    read: Callable[[str], FloatArray]
    states: Mapping[str, str]
    files: tuple[str, ...]


def open_descriptors(
    config: VerifyConfig,
    roots: Sequence[Path],
    keypoints_type: str,
    images: Sequence[str],
    descriptors_type: str | None = None,
) -> DescriptorSource | None:
    """Open the descriptors of keypoints, if they are needed.

    Args:
        config: which says so.
        roots: see open_feature_table.
        keypoints_type: that they belong to.
        images: names.
        descriptors_type: None takes the only one there is.

    Raises:
        DatasetError: there are none of these keypoints.
    """
    if not config.guided:
        return None
    try:
        tables = open_local_features(roots, keypoints_type, descriptors_type)
    except DatasetError as error:
        raise DatasetError(
            f"{error}; guided matching compares them: verify without --guided where "
            "there are none"
        ) from error
    return DescriptorSource(
        read=tables.read_descriptors,
        states=feature_states(tables, images),
        files=tuple(tables.descriptors.files(images)),
    )
