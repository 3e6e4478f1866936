"""Refinement of the matches of one pair of images, each match by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement.frames import local_affinities, scale_frames
from r2d2_kapture.refinement.patches import cut_templates, grey_image
from r2d2_kapture.refinement.registration import Registration, register
from r2d2_kapture.types import IndexArray, LocalFeatures


def register_matches(
    image1: npt.NDArray[np.uint8],
    image2: npt.NDArray[np.uint8],
    features1: LocalFeatures,
    features2: LocalFeatures,
    indices: IndexArray,
    config: RefineConfig = RefineConfig(),
) -> Registration:
    """Register the second keypoint of each match against the first.

    Args:
        image1, image2: (H, W, 3) RGB or (H, W) grey.
        features1, features2: of the images.
        indices: (K, 2) rows of the keypoints in both.
        config: of the registration.
    """
    first, second = indices[:, 0], indices[:, 1]
    points1 = features1.keypoints[first].astype(np.float64)
    points2 = features2.keypoints[second].astype(np.float64)
    scales1, scales2 = features1.scales[first], features2.scales[second]
    frames = scale_frames(scales1)
    affinities = local_affinities(points1, points2, scales1, scales2)
    templates = cut_templates(grey_image(image1), points1, frames, config)
    return register(templates, grey_image(image2), points2, affinities @ frames, config)
