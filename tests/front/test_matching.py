"""Matches, geometry and figures of two images whose homography is known."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from matplotlib.figure import Figure

import r2d2_kapture as rk
from r2d2_kapture.errors import ConfigError, FeatureFormatError, ImageError
from tests.scenes.features import features_at

COUNT, WRONG, DIM = 60, 15, 32
Pair = tuple[rk.LocalFeatures, rk.LocalFeatures]
H = np.array([[0.9, 0.1, 12.0], [-0.05, 1.1, 4.0], [1e-4, 0, 1]])


def features(keypoints: np.ndarray, descriptors: np.ndarray) -> rk.LocalFeatures:
    return rk.LocalFeatures(**vars(features_at(keypoints, descriptors, (320, 240))))


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Points of a plane; the last WRONG of the second image are elsewhere."""
    rng = np.random.default_rng(0)
    points = rng.uniform(10, 230, (COUNT, 2))
    descriptors = rng.normal(size=(COUNT, DIM))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    mapped = np.column_stack([points, np.ones(COUNT)]) @ H.T
    mapped = mapped[:, :2] / mapped[:, 2:]
    mapped[-WRONG:] = rng.uniform(10, 230, (WRONG, 2))
    order = rng.permutation(COUNT)
    return features(points, descriptors), features(mapped[order], descriptors[order])


def test_matches_and_the_plane_they_agree_with(pair: Pair) -> None:
    a, b = pair
    matches = rk.match(a, b)
    assert len(matches) == COUNT
    verified = rk.verify(a, b, matches)
    assert verified.kind.startswith("planar")
    # a wrong point may lie on the epipolar line by chance, a right one is never lost
    assert verified.inliers[: COUNT - WRONG].all()
    assert len(verified) == len(verified.inlier_matches) < COUNT
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    found = np.linalg.inv(shift) @ verified.geometry.H @ shift
    np.testing.assert_allclose(found / found[2, 2], H, rtol=0, atol=1e-3)
    verified = rk.verify(a, b, rk.match(a, b), min_inliers=COUNT + 1)
    assert len(verified) == 0 and verified.kind == "degenerate"


def test_known_cameras_give_the_relative_pose() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform([-1, -1, 4], [1, 1, 7], (COUNT, 3))
    camera = pycolmap.Camera.create_from_model_name(0, "SIMPLE_PINHOLE", 300, 320, 240)
    moved = points + [0.5, 0, 0.1]
    descriptors = np.eye(COUNT)
    a, b = (
        features(300 * world[:, :2] / world[:, 2:] + [159.5, 119.5], descriptors)
        for world in (points, moved)
    )
    verified = rk.verify(a, b, rk.match(a, b), cameras=(camera, camera))
    assert verified.kind == "calibrated"
    translation = verified.geometry.cam2_from_cam1.translation
    np.testing.assert_allclose(
        translation / np.linalg.norm(translation),
        np.array([0.5, 0, 0.1]) / np.linalg.norm([0.5, 0, 0.1]),
        atol=1e-3,
    )


def test_what_does_not_fit_together_is_refused(
    pair: Pair,
) -> None:
    a, b = pair
    other = features(b.keypoints, np.eye(COUNT))
    with pytest.raises(FeatureFormatError, match="one extractor"):
        rk.match(a, other)
    with pytest.raises(ConfigError, match="ratio"):
        rk.match(a, b, ratio=1.5)
    few = features(a.keypoints[:3], a.descriptors[:3])
    with pytest.raises(FeatureFormatError, match="numbers of keypoints"):
        rk.verify(few, b, rk.match(a, b))
    camera = pycolmap.Camera.create_from_model_name(0, "PINHOLE", 300, 240, 320)
    with pytest.raises(ConfigError, match="240 x 320 pixels for an image of 320 x 240"):
        rk.verify(a, b, rk.match(a, b), cameras=(camera, camera))
    with pytest.raises(ImageError, match="image2: found 240 x 320 pixels, .* 320 x"):
        shape = np.zeros((240, 320), np.uint8)
        rk.plot_matches(shape, shape.T, a, b, rk.match(a, b))
    with pytest.raises(ConfigError, match="device 'cuda:77': cannot be used"):
        a.to_torch("cuda:77")


def test_a_figure_shows_itself(
    pair: Pair,
) -> None:
    a, b = pair
    grey = np.full((240, 320), 128, np.uint8)
    matches = rk.match(a, b)
    verified = rk.verify(a, b, matches)
    figures = [
        rk.plot_matches(grey, grey, a, b, matches),
        rk.plot_matches(grey, grey, a, b, verified),
        rk.plot_keypoints(grey, a),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    titles = [figure.axes[0].get_title() for figure in figures]
    assert titles[0] == f"{COUNT} matches"
    assert titles[1] == f"{len(verified)} of {COUNT} matches are inliers"


def test_a_result_is_shown_by_its_counts() -> None:
    features = rk.LocalFeatures(**vars(features_at(np.zeros((3, 2)), np.eye(3, 4))))
    matches = rk.match(features, features)
    verified = rk.verify(features, features, matches)
    assert repr(features) == (
        "LocalFeatures(3 keypoints, descriptors of 4 values, image of 640 x 480)"
    )
    assert repr(matches) == "PairMatches(3 matches)"
    assert repr(verified).startswith(
        "VerifiedMatches(0 inliers of 3 matches, no geometry)"
    )
