"""Photographs of the scene, and runs that turn them into a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from PIL import Image

from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.colmap import stage as colmap
from r2d2_kapture.types import Report
from tests.scenes.world import FOCAL, Scene

QUIET = RunOptions(progress=False)
FORCED = RunOptions(progress=False, force=True)
KNOWN = ColmapConfig(map=MapConfig(refine_intrinsics=False))


def write_photos(folder: Path, scene: Scene) -> Path:
    """Grey images with an EXIF focal length near the true one."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model"
    exif.get_ifd(0x8769)[0xA405] = round(FOCAL * np.hypot(36, 24) / 800)
    return scene.write_pictures(folder, exif=exif)


def run(
    photos: Path,
    checkpoint: Checkpoint,
    config: ColmapConfig = ColmapConfig(),
    **changes: Any,
) -> Report:
    settings: dict[str, Any] = {
        "database": photos.parent / "a b.db",
        "weights": checkpoint,
        "options": QUIET,
    }
    return colmap.run(config, images=photos, **(settings | changes))


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def keypoints_of(path: Path) -> dict[str, Any]:
    with closing(pycolmap.Database.open(str(path))) as database:
        return {
            image.name: database.read_keypoints(image.image_id)
            for image in database.read_all_images()
        }
