"""What colours a picture shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def drawn(figure: Figure) -> np.ndarray:
    """The pixels of a figure."""
    figure.canvas.draw()
    pixels = figure.canvas.buffer_rgba()  # type: ignore[attr-defined]
    return np.asarray(pixels)[:, :, :3].astype(int)


def share_of(picture: np.ndarray, channel: int, lead: int = 60) -> float:
    """Share of the pixels in which one colour clearly leads."""
    others = np.delete(picture, channel, axis=2).max(axis=2)
    return float((picture[:, :, channel] - others > lead).mean())
