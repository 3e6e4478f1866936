"""SIFT on blobs whose places are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.extract import ExtractConfig, SiftConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.extractors.registry import build_extractor
from tests.scenes.images import textured_image


def sift(**settings: Any) -> Extractor:
    return build_extractor(ExtractConfig(extractor=SiftConfig(**settings), gpu=-1))


def blob(x: float, y: float, sigma: float) -> np.ndarray:
    """(160, 200, 3) uint8 with a bright spot; (0, 0) is the first pixel's centre."""
    rows, columns = np.mgrid[:160, :200]
    squared = (columns - x) ** 2 + (rows - y) ** 2
    grey = 40 + 180 * np.exp(-squared / (2 * sigma**2))
    return np.repeat(grey.round().astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("x, y, sigma", [(100, 60, 6), (83.25, 71.5, 9), (120, 80, 4)])
def test_the_centre_of_a_blob_counts_from_the_centre_of_the_first_pixel(
    x: float, y: float, sigma: float
) -> None:
    features = sift(upright=True)(blob(x, y, sigma))
    distances = np.linalg.norm(features.keypoints - (x, y), axis=1)
    nearest = distances.argmin()
    assert distances[nearest] < 0.1
    # the window of SIFT is 12 sigma of the keypoint, which is that of the blob
    assert features.scales[nearest] == pytest.approx(12 * sigma, rel=0.25)


def test_root_descriptors_are_the_roots_of_normalised_ones() -> None:
    image = textured_image(90, 130)
    root, plain = sift()(image), sift(root=False)(image)
    np.testing.assert_array_equal(root.keypoints, plain.keypoints)
    squares = root.descriptors.astype(np.float64) ** 2
    squares /= squares.sum(axis=1, keepdims=True)
    sums = plain.descriptors.astype(np.float64)
    sums /= sums.sum(axis=1, keepdims=True)
    # both are rounded to bytes
    np.testing.assert_allclose(squares, sums, atol=0.01)
    assert not (root.descriptors == plain.descriptors).all()


def test_settings_reach_colmap() -> None:
    image = textured_image(90, 130)
    every = sift()(image)
    assert len(sift(peak_threshold=0.05)(image)) < len(every)
    assert len(sift(first_octave=0)(image)) < len(every)
    assert len(sift(upright=True)(image)) < len(every)
    assert len(sift(edge_threshold=2)(image)) < len(every)


def test_large_images_are_shrunk_first() -> None:
    x, y, sigma = 83.5, 71.5, 9
    whole, half = (sift(max_edge=e)(blob(x, y, sigma)) for e in (0, 100))
    assert half.image_size == (200, 160)
    for features in (whole, half):
        distances = np.linalg.norm(features.keypoints - (x, y), axis=1)
        assert distances.min() < 0.15
        scale = features.scales[distances.argmin()]
        assert scale == pytest.approx(12 * sigma, rel=0.25)
    assert len(half.keypoints) <= len(whole.keypoints)
