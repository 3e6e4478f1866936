"""Registration against known displacements of images known at every point."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.refinement import patches
from r2d2_kapture.refinement.frames import scale_frames
from r2d2_kapture.refinement.patches import Templates, cut_templates, grey_image
from r2d2_kapture.refinement.registration import Registration, register
from tests.refinement.waves import Array, waves

CONFIG = RefineConfig()
SHIFT = (0.37, -0.21)


def observations(count: int = 60, *, seed: int = 0) -> Array:
    """(N, 2) points of the reference image of 160 x 140, away from its border."""
    return np.random.default_rng(seed).uniform([30, 30], [110, 100], (count, 2))


def registered(
    affinity: Array,
    *,
    noise: float = 0.5,
    gain: float = 1.0,
    bias: float = 0.0,
    config: RefineConfig = CONFIG,
) -> tuple[Registration, Array, Array]:
    """Points detected with noise, the true places, and what registration makes."""
    points = observations()
    templates = reference(points, config)
    true = points @ affinity.T + SHIFT
    zoom = np.sqrt(np.linalg.det(affinity))
    detected = true + np.random.default_rng(1).normal(0, noise * zoom, true.shape)
    image = waves(
        (int(170 * zoom), int(150 * zoom)),
        affinity=affinity,
        shift=SHIFT,
        gain=gain,
        bias=bias,
    )
    frames = affinity @ scale_frames(np.full(len(points), 64.0))
    return (
        register(templates, grey_image(image), detected, frames, config),
        true,
        detected,
    )


def reference(points: Array, config: RefineConfig = CONFIG) -> Templates:
    frames = scale_frames(np.full(len(points), 64.0))
    return cut_templates(grey_image(waves((160, 140))), points, frames, config)


def distances(first: Array, second: Array) -> Array:
    return np.asarray(np.linalg.norm(first - second, axis=1))


@pytest.mark.parametrize("gain, bias", [(1.0, 0.0), (0.6, 20.0)])
@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.5, 2.1])
def test_points_come_within_a_tenth_of_a_pixel(
    zoom: float, gain: float, bias: float
) -> None:
    found, true, detected = registered(zoom * np.eye(2), gain=gain, bias=bias)
    assert np.median(distances(detected, true)) > 0.4 * zoom
    assert np.median(distances(found.keypoints, true)) < 0.05 * max(zoom, 1)
    assert distances(found.keypoints, true).max() < 0.2 * max(zoom, 1)
    assert found.moved.mean() > 0.95


def test_keypoints_of_coarse_levels_are_found_from_afar() -> None:
    points = np.random.default_rng(0).uniform(60, 200, (60, 2))
    detected = points + SHIFT + np.random.default_rng(1).normal(0, 4, points.shape)
    frames = scale_frames(np.full(len(points), 8 * 32.0))
    first, second = (grey_image(waves((260, 260), shift=s)) for s in ((0, 0), SHIFT))
    templates = cut_templates(first, points, frames, CONFIG)
    found = register(templates, second, detected, frames, CONFIG)
    after = distances(found.keypoints, points + SHIFT)
    assert np.median(distances(detected, points + SHIFT)) > 3
    assert np.median(after) < 0.05 and (after < 0.2).mean() > 0.9


def test_turned_and_tilted_frames_are_followed() -> None:
    affinity = np.array([[0.9, -0.5], [0.4, 1.1]])
    found, true, _ = registered(affinity)
    assert np.median(distances(found.keypoints, true)) < 0.05


def test_steps_and_counts_are_those_of_the_keypoints() -> None:
    found, _, detected = registered(np.eye(2))
    np.testing.assert_allclose(
        found.steps, distances(found.keypoints, detected), atol=1e-12
    )
    assert found.counts["moved"] == found.moved.sum()
    assert sum(found.counts.values()) == len(detected)
    assert (found.after >= found.before)[found.moved].all()


def test_identical_images_move_nothing() -> None:
    points = observations()
    frames = scale_frames(np.full(len(points), 32.0))
    image = grey_image(waves((160, 140)))
    templates = cut_templates(image, points, frames, CONFIG)
    found = register(templates, image, points, frames, CONFIG)
    assert found.counts["still"] > 0.9 * len(points)
    assert found.steps.max() < 0.02


def test_other_content_is_refused_and_stays_to_the_bit() -> None:
    points = observations()
    frames = scale_frames(np.full(len(points), 32.0))
    other = grey_image(waves((160, 140), seed=7))
    found = register(reference(points), other, points, frames, CONFIG)
    assert found.moved.mean() < 0.1
    np.testing.assert_array_equal(
        found.keypoints[~found.moved], points[~found.moved], strict=True
    )
    assert (found.steps[~found.moved] == 0).all()


def test_flat_patches_are_refused_for_want_of_texture() -> None:
    points = observations()
    frames = scale_frames(np.full(len(points), 32.0))
    flat = np.full((140, 160), 90, np.uint8)
    for first, second in ((flat, waves((160, 140))), (waves((160, 140)), flat)):
        templates = cut_templates(grey_image(first), points, frames, CONFIG)
        found = register(templates, grey_image(second), points, frames, CONFIG)
        assert not found.moved.any()
        np.testing.assert_array_equal(found.keypoints, points)


def test_patches_beyond_the_border_are_refused() -> None:
    points = np.array([[2.0, 70.0], [157.0, 70.0], [80.0, 1.0], [80.0, 139.0]])
    frames = scale_frames(np.full(len(points), 32.0))
    image = grey_image(waves((160, 140)))
    inner = np.full_like(points, 70.0)
    for cut_at, found_at in ((points, inner), (inner, points)):
        templates = cut_templates(image, cut_at, frames, CONFIG)
        found = register(templates, image, found_at, frames, CONFIG)
        assert found.counts["border"] == len(points)
        assert np.isnan(found.after).all()
        np.testing.assert_array_equal(found.keypoints, found_at)


def test_an_edge_moves_points_across_it_only() -> None:
    columns = np.arange(160.0)
    edge = 128 + 100 * np.tanh((columns - 80) / 2)
    first = np.tile(edge.astype(np.uint8), (140, 1))
    shifted = 128 + 100 * np.tanh((columns - 80.6) / 2)
    second = np.tile(shifted.astype(np.uint8), (140, 1))
    points = np.array([[80.0, 50.0], [81.0, 70.0]])
    frames = scale_frames(np.full(len(points), 32.0))
    templates = cut_templates(grey_image(first), points, frames, CONFIG)
    found = register(templates, grey_image(second), points, frames, CONFIG)
    step = found.keypoints - points
    np.testing.assert_allclose(step, [[0.6, 0.0]] * 2, atol=0.08)


def test_places_beyond_the_largest_step_are_refused() -> None:
    config = RefineConfig(max_step=0.1)
    found, _, detected = registered(np.eye(2), config=config)
    assert found.counts["far"] > 30
    assert found.steps.max() <= 0.1 * 2
    np.testing.assert_array_equal(found.keypoints[~found.moved], detected[~found.moved])


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 9)])
def test_tiny_images_refuse_all(size: tuple[int, int]) -> None:
    points = observations(5)
    frames = scale_frames(np.full(len(points), 32.0))
    tiny = grey_image(np.zeros(size[::-1], np.uint8))
    inside = np.zeros((5, 2))
    found = register(reference(points), tiny, inside, frames, CONFIG)
    assert found.counts["border"] == 5
    assert not cut_templates(tiny, inside, frames, CONFIG).pixels.any()


def test_no_keypoints() -> None:
    none = np.zeros((0, 2))
    frames = np.zeros((0, 2, 2))
    image = grey_image(waves((160, 140)))
    templates = cut_templates(image, none, frames, CONFIG)
    found = register(templates, image, none, frames, CONFIG)
    assert found.keypoints.shape == (0, 2) and not found.counts["moved"]


def test_threads_and_parts_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def bytes_of(chunk: int, threads: int) -> bytes:
        monkeypatch.setattr(patches, "CHUNK_SAMPLES", chunk)
        torch.set_num_threads(threads)
        found, _, _ = registered(1.2 * np.eye(2))
        return b"".join(value.tobytes() for value in vars(found).values())

    threads = torch.get_num_threads()
    try:
        whole = bytes_of(1 << 18, 2)
        assert bytes_of(1 << 18, 1) == whole
        assert bytes_of(361, 1) == whole
        assert bytes_of(7 * 361, 2) == whole
    finally:
        torch.set_num_threads(threads)


def test_grey_levels_lie_on_every_second_pixel() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    pyramid = grey_image(ramp)
    start = int(pyramid.starts[1])
    width, height = pyramid.sizes[1].tolist()
    level = pyramid.pixels[start : start + width * height].view(height, width)
    assert (width, height) == (32, 24)
    torch.testing.assert_close(level[:, 1:-1], torch.arange(2.0, 62, 2).expand(24, -1))
