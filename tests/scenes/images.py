"""Images, of noise or of texture whose maps have distinct maxima, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from r2d2_kapture.io.kapture.camera_sizes import dataset_images
from r2d2_kapture.io.kapture.dataset import open_dataset

CROP_SIZE = (96, 80)
SHIFTS = ((0, 0), (8, 4), (12, -8))


def textured_image(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: noise at three sizes, so that every scale has structure."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for cell, strength in ((1, 20.0), (4, 40.0), (16, 40.0)):
        coarse = torch.randn(
            1, 3, height // cell + 2, width // cell + 2, generator=generator
        )
        image += strength * F.interpolate(
            coarse, (height, width), mode="bicubic", align_corners=False
        )
    pixels: npt.NDArray[np.uint8] = (
        (image[0] + 128).clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    )
    return pixels


def write_noise(
    path: Path, seed: int, size: tuple[int, int] = (64, 48), **options: Any
) -> Path:
    """A picture of coloured noise; options are those of saving."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_crops(
    folder: Path, seed: int = 0, shifts: Sequence[tuple[int, int]] = SHIFTS
) -> Path:
    """Images 1 to n of 96 x 80, each shifted by whole pixels, with H_1_2 to H_1_n."""
    folder.mkdir(parents=True)
    (width, height), margin = CROP_SIZE, 16
    large = textured_image(height + 2 * margin, width + 2 * margin, seed)
    for number, (dx, dy) in enumerate(shifts, start=1):
        left, top = margin + dx, margin + dy
        crop = large[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{number}.png")
        if number > 1:
            matrix = np.array([[1.0, 0, -dx], [0, 1, -dy], [0, 0, 1]])
            np.savetxt(folder / f"H_1_{number}", matrix)
    return folder


def write_image_files(
    root: Path, unlike: Mapping[str, tuple[int, int]] | None = None
) -> None:
    """Write an image file for every record of a dataset.

    Args:
        root: of the dataset.
        unlike: (W, H) of images that are to differ from their camera, by name.
    """
    for name, image in dataset_images(open_dataset(root)).items():
        image.path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (unlike or {}).get(name, image.size)).save(image.path)
