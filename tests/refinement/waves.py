"""Images of a sum of waves, whose value at any point is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def waves(
    size: tuple[int, int],
    *,
    affinity: Array | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
    gain: float = 1.0,
    bias: float = 0.0,
    seed: int = 1,
) -> npt.NDArray[np.uint8]:
    """A grey image whose pixel A x + t shows the waves at x.

    Args:
        size: width and height in pixels.
        affinity: A, by default the identity.
        shift: t in pixels.
        gain, bias: of the light; the bias in grey levels.
        seed: of the waves.
    """
    width, height = size
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([columns, rows], axis=-1) - shift
    x, y = np.moveaxis(
        pixels @ np.linalg.inv(np.eye(2) if affinity is None else affinity).T, -1, 0
    )
    random = np.random.default_rng(seed)
    value = np.zeros_like(x)
    for _ in range(40):
        frequency = random.uniform(0.02, 0.2)
        angle, phase = random.uniform(0, 2 * np.pi, 2)
        along = np.cos(angle) * x + np.sin(angle) * y
        value += np.cos(2 * np.pi * frequency * along + phase) / (1 + 20 * frequency)
    grey = 128 + bias + 25 * gain * value
    return grey.round().clip(0, 255).astype(np.uint8)
