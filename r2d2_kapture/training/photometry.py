"""Changes of colours: brightness, contrast, saturation, noise, light, and night."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.training.pairs import RGBArray

FloatImage = npt.NDArray[np.float32]

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of R, G and B in the luma of ITU-R BT.601."""
MOST_LAMPS = 3
MOST_BANDS = 3
MOST_BLUR = 1.2
"""Standard deviation in pixels."""
QUALITIES = (40, 95)
"""Of JPEG, the second one excluded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Photometry:
    """One change of colours, all its numbers drawn: a crop always gets the same one.

    Attributes:
        brightness: factor.
        contrast: factor about the mean grey of the crop.
        saturation: factor about the grey of each pixel.
        noise: standard deviation in grey levels of 255.
        noise_seed: of the noise.
        night: applied before the noise; None by day.
        light: applied before that; None leaves it as it is.
        blur: standard deviation in pixels of the blur after the noise.
        quality: of the JPEG compression in the end, 1 to 95; 0 is none.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0
    night: Night | None = None
    light: Light | None = None
    blur: float = 0.0
    quality: int = 0

    def __call__(self, image: FloatImage) -> RGBArray:
        """Change a (H, W, 3) float32 crop of 0..255, and round it."""
        colors = np.clip(image, 0, 255) * np.float32(self.brightness)
        grey = (colors @ GREY_WEIGHTS)[..., None]
        colors = grey + np.float32(self.saturation) * (colors - grey)
        mean = grey.mean()
        colors = mean + np.float32(self.contrast) * (colors - mean)
        if self.light is not None:
            colors = self.light(colors)
        if self.night is not None:
            colors = self.night(colors)
        if self.noise:
            rng = np.random.default_rng(self.noise_seed)
            grain = rng.standard_normal(image.shape, dtype=np.float32)
            colors += np.float32(self.noise) * grain
        rounded = np.rint(np.clip(colors, 0, 255)).astype(np.uint8)
        return self._degraded(rounded) if self.blur or self.quality else rounded

    def _degraded(self, pixels: RGBArray) -> RGBArray:
        picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(self.blur))
        if self.quality:
            stored = io.BytesIO()
            picture.save(stored, "JPEG", quality=self.quality)
            picture = Image.open(stored)
        return np.asarray(picture)


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """Another exposure curve, and bands of light and shadow.

    Attributes:
        gamma: exponent of the colours in 0..1.
        bands: (K, 5) waves along x and y in a crop, phase, hardness of their edges, and
            how much they change the logarithm of the light.
    """

    gamma: float
    bands: npt.NDArray[np.float64]

    def __call__(self, image: FloatImage) -> FloatImage:
        """Light a (H, W, 3) float32 crop of about 0..255."""
        height, width = image.shape[:2]
        x = (np.arange(width, dtype=np.float32) / width)[None]
        y = (np.arange(height, dtype=np.float32) / height)[:, None]
        light = np.zeros((height, width), dtype=np.float32)
        for across, down, phase, hardness, change in self.bands.astype(np.float32):
            wave = np.cos(2 * np.pi * (across * x + down * y) + phase)
            light += change * np.tanh(hardness * wave)
        curve = np.clip(image / 255, 0, 1) ** np.float32(self.gamma)
        return np.asarray(255 * curve * np.exp(light)[..., None])


@dataclass(frozen=True, kw_only=True, eq=False)
class Night:
    """Darkness, tinted, with lamps that glow.

    Attributes:
        gamma: exponent of the colours in 0..1, above 1: shadows drown.
        exposure: (3,) factor of each colour.
        lamps: (K, 4) x, y and radius in sides of the crop, and peak in grey levels.
    """

    gamma: float
    exposure: FloatImage
    lamps: npt.NDArray[np.float64]

    def __call__(self, image: FloatImage) -> FloatImage:
        """Darken a (H, W, 3) float32 crop of about 0..255."""
        height, width = image.shape[:2]
        dark = np.clip(image / 255, 0, 1) ** np.float32(self.gamma)
        light = np.ones((height, width), dtype=np.float32)
        x = np.arange(width) / width
        y = np.arange(height) / height
        for lamp_x, lamp_y, radius, peak in self.lamps:
            across = np.exp(-(((x - lamp_x) / radius) ** 2))
            down = np.exp(-(((y - lamp_y) / radius) ** 2))
            light += (peak * down[:, None] * across[None]).astype(np.float32)
        return np.asarray(255 * dark * self.exposure * light[..., None])


def random_photometry(
    config: PairConfig, rng: np.random.Generator, *, night: bool = False
) -> Photometry:
    """Draw brightness, contrast, saturation and noise, by night or by day."""
    brightness, contrast, saturation = rng.uniform(
        1 - config.jitter, 1 + config.jitter, 3
    )
    # no number is drawn for what is not asked for: the rest stays what it was
    relit = config.relight > 0 and rng.random() < config.relight
    degraded = config.degrade > 0 and rng.random() < config.degrade
    return Photometry(
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        noise=rng.uniform(0, config.noise),
        noise_seed=int(rng.integers(2**62)),
        night=random_night(rng) if night else None,
        light=random_light(rng) if relit else None,
        blur=rng.uniform(0, MOST_BLUR) if degraded else 0.0,
        quality=int(rng.integers(*QUALITIES)) if degraded else 0,
    )


def random_light(rng: np.random.Generator) -> Light:
    """Draw a gamma and up to three bands, from a soft gradient to a cast shadow."""
    bands = int(rng.integers(MOST_BANDS + 1))
    low, high = (-1.5, -1.5, 0, 0.5, -0.5), (1.5, 1.5, 2 * np.pi, 12, 0.5)
    return Light(
        gamma=float(np.exp(rng.uniform(-0.5, 0.5))),
        bands=rng.uniform(low, high, (bands, 5)),
    )


def random_night(rng: np.random.Generator) -> Night:
    """Draw a night, from dusk under a yellow lamp to a blue hour."""
    lamps = int(rng.integers(MOST_LAMPS + 1))
    tint = rng.uniform((0.85, 0.75, 0.55), (1.15, 1.0, 1.1))
    return Night(
        gamma=rng.uniform(1.1, 1.9),
        exposure=(rng.uniform(0.35, 0.85) * tint).astype(np.float32),
        lamps=rng.uniform((0, 0, 0.1, 0.3), (1, 1, 0.5, 2.0), (lamps, 4)),
    )
