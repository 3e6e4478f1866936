"""Changes of colours."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.training.photometry import Light, Night, Photometry, random_photometry


def colors(side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(20, 200, (side, side, 3)).astype(np.float32)


def test_the_default_only_rounds_and_clips() -> None:
    image = colors()
    np.testing.assert_array_equal(Photometry()(image), np.rint(image).astype(np.uint8))
    image = np.array([[[-8.0, 300.0, 128.4]]], dtype=np.float32)
    np.testing.assert_array_equal(Photometry()(image), [[[0, 255, 128]]])


def test_brightness_contrast_saturation_blur_and_compression() -> None:
    image = colors()
    brighter = Photometry(brightness=1.2)(image)
    assert np.abs(brighter - 1.2 * image).max() < 1
    flatter = Photometry(contrast=0.5)(image).astype(float)
    assert flatter.std() == pytest.approx(0.5 * image.std(), rel=0.01)
    assert flatter.mean() == pytest.approx(image.mean(), abs=2)
    grey = Photometry(saturation=0)(image)
    assert np.ptp(grey, axis=-1).max() == 0
    plain = Photometry()(image).astype(float)
    for worse in (Photometry(blur=1.0), Photometry(quality=40)):
        degraded = worse(image).astype(float)
        assert degraded.mean() == pytest.approx(plain.mean(), abs=2)
        assert 0.1 * plain.std() < degraded.std() < 0.9 * plain.std()


def test_noise_has_the_deviation_asked_for_and_repeats() -> None:
    image = np.full((128, 128, 3), 128, dtype=np.float32)
    noisy = Photometry(noise=6.0, noise_seed=5)(image)
    assert noisy.std() == pytest.approx(6, rel=0.05)
    np.testing.assert_array_equal(noisy, Photometry(noise=6.0, noise_seed=5)(image))
    assert (noisy != Photometry(noise=6.0, noise_seed=6)(image)).any()


def test_night_is_dark_but_for_its_lamps() -> None:
    image = np.full((64, 64, 3), 150, dtype=np.float32)
    exposure = np.array([0.6, 0.5, 0.4], dtype=np.float32)
    lamps = np.array([[0.25, 0.25, 0.2, 1.5]])
    dark = Photometry(night=Night(gamma=1.5, exposure=exposure, lamps=lamps[:0]))(image)
    lit = Photometry(night=Night(gamma=1.5, exposure=exposure, lamps=lamps))(image)
    expected = 255 * (150 / 255) ** 1.5 * exposure
    np.testing.assert_allclose(dark[5, 5], expected, atol=0.6)
    assert lit[16, 16, 0] > 2 * dark[16, 16, 0]
    np.testing.assert_allclose(lit[60, 60], dark[60, 60], atol=1)


def test_a_band_of_light_has_a_shadow_beside_it() -> None:
    image = np.full((64, 64, 3), 100, dtype=np.float32)
    # one hard edge across the middle: light above, shadow below
    band = np.array([[0.0, 0.5, 0.0, 12.0, 0.4]])
    lit = Photometry(light=Light(gamma=1.0, bands=band))(image).astype(float)
    np.testing.assert_allclose(lit[4], 100 * np.exp(0.4), atol=1)
    np.testing.assert_allclose(lit[60], 100 * np.exp(-0.4), atol=1)
    curve = Photometry(light=Light(gamma=2.0, bands=band[:0]))(image)
    np.testing.assert_allclose(curve, 255 * (100 / 255) ** 2, atol=0.6)


def test_light_and_blur_are_drawn_as_often_as_asked() -> None:
    config = PairConfig(relight=0.5, degrade=0.25)
    rng = np.random.default_rng(0)
    drawn = [random_photometry(config, rng) for _ in range(400)]
    assert 160 < sum(item.light is not None for item in drawn) < 240
    assert 70 < sum(item.quality > 0 for item in drawn) < 130
    assert all((item.blur > 0) == (item.quality > 0) for item in drawn)


def test_drawn_changes_stay_within_the_settings() -> None:
    config = PairConfig(jitter=0.2, noise=4.0)
    rng = np.random.default_rng(0)
    drawn = [random_photometry(config, rng) for _ in range(200)]
    for name in ("brightness", "contrast", "saturation"):
        values = [getattr(item, name) for item in drawn]
        assert 0.8 <= min(values) < 0.85 and 1.15 < max(values) <= 1.2
    assert 3.5 < max(item.noise for item in drawn) <= 4
    assert all(item.night is None for item in drawn)
    assert len({item.noise_seed for item in drawn}) == 200


def test_drawn_nights_keep_structure() -> None:
    image = np.kron(np.array([[60, 200], [200, 60]]), np.ones((32, 32)))
    picture = np.repeat(image[..., None], 3, axis=2).astype(np.float32)
    rng = np.random.default_rng(0)
    for _ in range(50):
        photometry = random_photometry(PairConfig(jitter=0, noise=0), rng, night=True)
        night = photometry(picture).astype(float)
        assert night.mean() < picture.mean() * 1.6
        assert np.corrcoef(night.mean(axis=-1).ravel(), image.ravel())[0, 1] > 0.3
