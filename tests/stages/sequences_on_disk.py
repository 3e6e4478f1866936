"""Small homography sequences on disk: crops of one textured image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.networks import textured_image

SIZE = (96, 80)
SHIFTS = ((0, 0), (8, 4), (12, -8))


def write_crops(
    folder: Path, seed: int = 0, shifts: Sequence[tuple[int, int]] = SHIFTS
) -> Path:
    """Images 1 to n of 96 x 80, each shifted by whole pixels, with H_1_2 to H_1_n."""
    folder.mkdir(parents=True)
    (width, height), margin = SIZE, 16
    large = textured_image(height + 2 * margin, width + 2 * margin, seed)
    for number, (dx, dy) in enumerate(shifts, start=1):
        left, top = margin + dx, margin + dy
        crop = large[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{number}.png")
        if number > 1:
            matrix = np.array([[1.0, 0, -dx], [0, 1, -dy], [0, 0, 1]])
            np.savetxt(folder / f"H_1_{number}", matrix)
    return folder
