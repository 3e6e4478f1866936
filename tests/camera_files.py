"""Image files of a dataset, of the size that its sensors say or of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from r2d2_kapture.io.kapture.camera_sizes import dataset_images
from r2d2_kapture.io.kapture.dataset import open_dataset


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
