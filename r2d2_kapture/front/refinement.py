"""Sub-pixel refinement of the matches of two images."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.front.images import ImageLike, read_image
from r2d2_kapture.refinement.matches import register_matches
from r2d2_kapture.types import LocalFeatures, PairMatches

Features = TypeVar("Features", bound=LocalFeatures)


def refine_matches(
    image1: ImageLike,
    image2: ImageLike,
    features1: LocalFeatures,
    features2: Features,
    matches: PairMatches,
    **settings: Any,
) -> Features:
    """Move the matched keypoints of image 2 to where image 1 shows them, sub-pixel.

    A keypoint whose surroundings do not tell stays where it is. Those of several
    matches follow their first one.

    Args:
        image1, image2: path, PIL image or array, as an extractor takes them.
        features1, features2: of these images.
        matches: between them.
        settings: of RefineConfig: ``max_step=1.0``, ...

    Returns:
        The features of image 2 with moved keypoints, for ``verify`` and the others.

    Raises:
        ConfigError: an unknown setting, or features of an image of another size.
        FeatureFormatError: matches of keypoints that do not exist.
        ImageError: an image cannot be read.
    """
    config = make_settings(RefineConfig, settings)
    matches.check_counts(("image 1", "image 2"), (len(features1), len(features2)))
    pixels = read_image(image1), read_image(image2)
    both: tuple[LocalFeatures, LocalFeatures] = features1, features2
    for name, image, features in zip("12", pixels, both):
        size = image.shape[1::-1]
        require(
            size == features.image_size,
            f"features{name}: found those of an image of {features.image_size[0]} x "
            f"{features.image_size[1]} pixels, expected those of image{name}, "
            f"{size[0]} x {size[1]}",
        )
    _, first = np.unique(matches.indices[:, 1], return_index=True)
    indices = matches.indices[first]
    found = register_matches(*pixels, features1, features2, indices, config)
    keypoints = features2.keypoints.copy()
    keypoints[indices[found.moved, 1]] = found.keypoints[found.moved]
    return dataclasses.replace(features2, keypoints=keypoints)
