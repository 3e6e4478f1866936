"""Changes of colours: brightness, contrast, saturation, noise, and night."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.training.pairs import RGBArray

FloatImage = npt.NDArray[np.float32]

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of R, G and B in the luma of ITU-R BT.601."""
MOST_LAMPS = 3


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
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0
    night: Night | None = None

    def __call__(self, image: FloatImage) -> RGBArray:
        """Change a (H, W, 3) float32 crop of 0..255, and round it."""
        colors = np.clip(image, 0, 255) * np.float32(self.brightness)
        grey = (colors @ GREY_WEIGHTS)[..., None]
        colors = grey + np.float32(self.saturation) * (colors - grey)
        mean = grey.mean()
        colors = mean + np.float32(self.contrast) * (colors - mean)
        if self.night is not None:
            colors = self.night(colors)
        if self.noise:
            rng = np.random.default_rng(self.noise_seed)
            grain = rng.standard_normal(image.shape, dtype=np.float32)
            colors += np.float32(self.noise) * grain
        return np.rint(np.clip(colors, 0, 255)).astype(np.uint8)


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
    return Photometry(
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        noise=rng.uniform(0, config.noise),
        noise_seed=int(rng.integers(2**62)),
        night=random_night(rng) if night else None,
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
