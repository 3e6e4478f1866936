"""Random views: how much they differ, and that they show the same thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.training.pairs import TrainingPair, crop_pair, pixel_grid
from r2d2_kapture.training.transforms import (
    Strength,
    random_pair,
    random_scales,
    strength_at,
    tilted_view,
)
from r2d2_kapture.training.views import Picture, apply_homography

PLAIN = PairConfig(jitter=0, noise=0, night=0)


def smooth_picture(size: tuple[int, int], seed: int = 0) -> Picture:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*size[::-1], 3))
    soft = np.stack([gaussian_filter(noise[..., c], 4) for c in range(3)], axis=-1)
    pixels = np.clip(128 + 45 * soft / soft.std(), 0, 255).astype(np.uint8)
    return Picture(pixels=pixels)


def jacobian_in_the_middle(view) -> np.ndarray:
    """(2, 2) derivative of view pixels by picture pixels, in the picture's middle."""
    matrix = np.linalg.inv(view.picture_from_view)
    middle = (np.array(view.picture.size) - 1) / 2
    step = 1e-4
    moved = [
        apply_homography(matrix, (middle + sign * step * direction)[None])[0]
        for direction in np.eye(2)
        for sign in (1, -1)
    ]
    columns = [(moved[0] - moved[1]) / (2 * step), (moved[2] - moved[3]) / (2 * step)]
    return np.stack(columns, axis=1)


def test_scale_rotation_and_tilt_in_the_middle() -> None:
    picture = smooth_picture((60, 50))
    for rotation in (0.0, 0.3, -2.0):
        view = tilted_view(
            picture, 0.7, rotation=rotation, tilt=0, tilt_axis=1, focal=60.0
        )
        cos, sin = 0.7 * np.cos(rotation), 0.7 * np.sin(rotation)
        expected = [[cos, -sin], [sin, cos]]
        np.testing.assert_allclose(jacobian_in_the_middle(view), expected, atol=1e-6)
    # a tilt foreshortens by its cosine across its axis
    axis = np.array([np.cos(0.6), np.sin(0.6)])
    for tilt in (0.2, 0.8, 1.1):
        view = tilted_view(
            picture, 0.7, rotation=0, tilt=tilt, tilt_axis=0.6, focal=60.0
        )
        jacobian = jacobian_in_the_middle(view)
        np.testing.assert_allclose(jacobian @ axis, 0.7 * axis, atol=1e-6)
        sizes = np.linalg.svd(jacobian, compute_uv=False)
        np.testing.assert_allclose(sizes, [0.7, 0.7 * np.cos(tilt)], atol=1e-6)


def test_the_view_holds_the_whole_picture_and_no_more() -> None:
    picture = smooth_picture((61, 47))
    view = tilted_view(
        picture, 1.3, rotation=0.5, tilt=np.radians(65), tilt_axis=2.2, focal=0.9 * 61
    )
    corners = apply_homography(
        np.linalg.inv(view.picture_from_view), pixel_grid([0, 60], [0, 46])
    )
    np.testing.assert_allclose(corners.min(axis=0), 0, atol=1e-8)
    assert (np.ceil(corners.max(axis=0)).astype(int) <= view.size).all()
    assert (corners.max(axis=0) >= np.subtract(view.size, 1)).all()


def test_difficulty_holds_rises_and_goes_from_mild_to_strong() -> None:
    config = PairConfig(
        mild_scale=1.5, strong_scale=2.4, mild_rotation=9, strong_rotation=21
    )
    mild, middle, strong = (strength_at(config, d) for d in (0.0, 0.5, 1.0))
    assert mild.scale == pytest.approx(1.5) and strong.scale == pytest.approx(2.4)
    assert middle.scale == pytest.approx(np.sqrt(1.5 * 2.4))
    degrees = [np.degrees(item.rotation) for item in (mild, middle, strong)]
    np.testing.assert_allclose(degrees, [9, 15, 21])
    assert mild.tilt < middle.tilt < strong.tilt
    config = PairConfig(hold_steps=100, ramp_steps=200)
    steps = [0, 100, 200, 300, 1000]
    assert [config.difficulty(step) for step in steps] == [0, 0, 0.5, 1, 1]
    at_once = PairConfig(hold_steps=3, ramp_steps=0)
    assert [at_once.difficulty(step) for step in (2, 3)] == [0, 1]


def test_scales_stay_within_their_bounds_and_reach_them() -> None:
    config = PairConfig(min_side=256, max_side=800, max_upscale=1.25)
    rng = np.random.default_rng(0)
    sizes = ((1000, 700), (1000, 700))
    drawn = np.array([random_scales(sizes, config, 1.8, rng) for _ in range(4000)])
    assert drawn.min() == pytest.approx(256 / 700, rel=0.02)
    assert drawn.max() == pytest.approx(800 / 700, rel=0.02)
    assert drawn.min() >= 256 / 700 and drawn.max() <= 800 / 700
    changes = np.log(drawn[:, 1] / drawn[:, 0]) / np.log(1.8)
    assert -1 <= changes.min() < -0.95 and 0.95 < changes.max() <= 1
    assert abs(changes.mean()) < 0.05
    config = PairConfig(min_side=256, max_upscale=1.1)
    rng = np.random.default_rng(0)
    drawn = [random_scales(((210, 200), (210, 200)), config, 2, rng) for _ in range(9)]
    np.testing.assert_allclose(drawn, 1.1)


def sampled(image: np.ndarray, positions: np.ndarray) -> np.ndarray:
    side = image.shape[0]
    grid = torch.from_numpy(positions * (2 / (side - 1)) - 1).float()[None]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = F.grid_sample(pixels, grid, mode="bicubic", align_corners=True)
    return found[0].permute(1, 2, 0).numpy()


def crops(seed: int, difficulty: float) -> TrainingPair:
    rng = np.random.default_rng(seed)
    picture = smooth_picture((640, 500), seed)
    strength = strength_at(PLAIN, difficulty)
    for _ in range(20):
        raw = random_pair("noise", (picture, picture), None, PLAIN, strength, rng)
        pair = crop_pair(raw, 128, rng)
        if pair is not None:
            return pair
    raise AssertionError("no pair in 20 tries")


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_both_crops_show_the_same_thing_where_the_flow_says(difficulty) -> None:
    for seed in range(4):
        pair = crops(seed, difficulty)
        known = np.isfinite(pair.aflow[..., 0])
        assert known.mean() > 0.08
        found = sampled(pair.image2, np.nan_to_num(pair.aflow))
        difference = found[known] - pair.image1[known]
        # waves of some 10 pixels lose contrast where a view shrinks them
        assert np.sqrt(np.mean(difference**2)) < 12
        assert np.corrcoef(found[known].ravel(), pair.image1[known].ravel())[0, 1] > 0.9


def test_the_flow_is_exact_to_a_fraction_of_a_pixel() -> None:
    shifts = []
    for seed in range(8):
        pair = crops(seed, 0.0)
        known = np.isfinite(pair.aflow[..., 0])
        base = np.nan_to_num(pair.aflow)
        slopes = [
            (sampled(pair.image2, base + d) - sampled(pair.image2, base - d))[known]
            for d in (np.array([0.5, 0]), np.array([0, 0.5]))
        ]
        design = np.stack([slope.ravel() for slope in slopes], axis=1)
        residual = (pair.image1[known] - sampled(pair.image2, base)[known]).ravel()
        shifts.append(np.linalg.lstsq(design, residual, rcond=None)[0])
    assert np.abs(shifts).max() < 0.05
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.02


def test_a_pair_repeats_with_its_seed() -> None:
    first, again, other = crops(1, 0.5), crops(1, 0.5), crops(2, 0.5)
    np.testing.assert_array_equal(first.image2, again.image2)
    np.testing.assert_array_equal(first.aflow, again.aflow)
    assert (first.image2 != other.image2).any()


def test_only_the_second_view_is_warped() -> None:
    picture = smooth_picture((640, 500))
    strength = Strength(scale=1.0, rotation=0.2, tilt=0.5)
    rng = np.random.default_rng(0)
    raw = random_pair("p", (picture, picture), None, PLAIN, strength, rng)
    matrix = raw.view1.picture_from_view
    np.testing.assert_allclose(matrix[:2, :2], matrix[0, 0] * np.eye(2), atol=1e-12)
    assert abs(raw.view2.picture_from_view[0, 1]) > 1e-3


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"crop_size": 16}, "--crop-size"),
        ({"min_side": 100}, "--min-side"),
        ({"min_side": 900, "max_side": 800}, "--max-side"),
        ({"max_upscale": 0.5}, "--max-upscale"),
        ({"strong_scale": 0.9}, "--strong-scale"),
        ({"min_overlap": 1.5}, "--min-overlap"),
        ({"strong_tilt": 90}, "--strong-tilt"),
        ({"noise": -1}, "--noise"),
        ({"folder_weights": "drone"}, "--folder-weights"),
        ({"folder_weights": "drone=-1"}, "--folder-weights"),
        ({"folder_weights": "drone=nan"}, "--folder-weights"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named) -> None:
    with pytest.raises(ConfigError, match=named):
        PairConfig(**settings)
