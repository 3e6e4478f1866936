"""Matches of two images whose geometry is known are refined towards it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.errors import ConfigError, FeatureFormatError, ImageError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.pair_poses import match_pair
from r2d2_kapture.evaluation.pair_results import load_run
from r2d2_kapture.evaluation.posed_images import PosedImage, PosedImages
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages.benchmark.pair_poses import posed_pairs
from r2d2_kapture.stages.benchmark.stored_features import features_beside_images
from r2d2_kapture.types import LocalFeatures, PairMatches
from tests.refinement.waves import Array, waves
from tests.scenes.features import features_at
from tests.scenes.two_views import posed_image
from tests.stages.benchmark.cases import QUIET

DISPARITY = 12.4
"""Pixels by which a plane in front of two parallel cameras moves."""


@dataclasses.dataclass(frozen=True)
class Views:
    images: tuple[PosedImage, PosedImage]
    features: tuple[LocalFeatures, LocalFeatures]
    true: Array

    @property
    def matches(self) -> PairMatches:
        count = len(self.true)
        rows = np.arange(count)
        return PairMatches(
            indices=np.column_stack([rows, rows]), scores=np.ones(count, np.float32)
        )

    @property
    def paths(self) -> tuple[Path, Path]:
        return self.images[0].path, self.images[1].path

    def errors(self, keypoints: np.ndarray) -> Array:
        return np.asarray(np.linalg.norm(keypoints - self.true, axis=1))


@pytest.fixture
def views(tmp_path: Path) -> Views:
    """A plane before parallel cameras; keypoints of the second are half a pixel off."""
    names = ("a é.png", "b b.png")
    cameras = (posed_image(names[0]), posed_image(names[1], translation=(-1, 0, 0)))
    images = []
    for camera, shift in zip(cameras, (0.0, -DISPARITY)):
        path = tmp_path / camera.name
        Image.fromarray(waves((640, 480), shift=(shift, 0))).save(path)
        images.append(dataclasses.replace(camera, path=path))
    random = np.random.default_rng(0)
    points = random.uniform(40, 440, (60, 2))
    true = points - [DISPARITY, 0]
    detected = true + random.normal(0, 0.5, true.shape)
    features = features_at(points), features_at(detected)
    for image, one in zip(images, features):
        write_npz(feature_path(image.path, "r2d2"), one)
    return Views(images=(images[0], images[1]), features=features, true=true)


def test_the_keypoints_of_the_second_image_move(views: Views) -> None:
    refined = rk.refine_matches(*views.paths, *views.features, views.matches)
    before, after = (
        np.median(views.errors(one.keypoints)) for one in (views.features[1], refined)
    )
    assert after < 0.1 * before
    given, kept = (vars(one) for one in (views.features[1], refined))
    for name in ("scales", "scores", "descriptors"):
        np.testing.assert_array_equal(given[name], kept[name])


def test_keypoints_without_a_match_stay(views: Views) -> None:
    some = PairMatches(
        indices=views.matches.indices[:5], scores=views.matches.scores[:5]
    )
    refined = rk.refine_matches(*views.paths, *views.features, some)
    changed = (refined.keypoints != views.features[1].keypoints).any(axis=1)
    assert changed[:5].any() and not changed[5:].any()


def test_wrong_input_is_refused(views: Views, tmp_path: Path) -> None:
    first, second = views.paths
    with pytest.raises(ConfigError, match="features1: found those of .* 640 x 480"):
        small = np.zeros((4, 5), np.uint8)
        rk.refine_matches(small, second, *views.features, views.matches)
    with pytest.raises(ConfigError, match="patch_radios"):
        rk.refine_matches(first, second, *views.features, views.matches, patch_radios=3)
    with pytest.raises(ImageError, match="none.png"):
        missing = tmp_path / "none.png"
        rk.refine_matches(missing, second, *views.features, views.matches)
    few = features_at([[1, 1]])
    with pytest.raises(FeatureFormatError, match="numbers of keypoints"):
        rk.refine_matches(first, second, few, few, views.matches)


def test_matches_are_measured_after_refinement(views: Views) -> None:
    rough = match_pair(*views.images, *views.features)
    fine = match_pair(*views.images, *views.features, refine=RefineConfig())
    np.testing.assert_array_equal(rough.points1, fine.points1)
    assert np.median(fine.errors) < 0.1 * np.median(rough.errors)


def test_the_evaluation_refines_if_asked(views: Views, tmp_path: Path) -> None:
    posed = PosedImages(images=views.images, root=tmp_path)
    found = []
    for refine in (False, True):
        config = PairPosesConfig(worst_pairs=1, refine=refine)
        output = tmp_path / f"refine {refine}"
        benchmark.run(
            posed_pairs(config, posed),
            sources=[features_beside_images("r2d2")],
            output=output,
            options=QUIET,
        )
        found.append(load_run(output / "r2d2.poses.json"))
    off, on = found
    assert "refine" not in off.manifest["settings"]
    assert on.manifest["settings"]["refine"]["patch_radius"] > 0
    assert on.values["epipolar@1"] > off.values["epipolar@1"]
