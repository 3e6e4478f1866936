"""Settings and logs of small runs of training, and photographs to train on."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from r2d2_kapture.config.train import TrainConfig
from r2d2_kapture.synthetic.rendering import PinholeCamera
from tests.scenes.rendered import add_depth_maps, look_into_the_room, write_photographs


def changed(config: TrainConfig, part: str = "pace", **settings: object) -> TrainConfig:
    """The settings with others in one of their parts."""
    whole = dataclasses.replace(getattr(config, part), **settings)
    return dataclasses.replace(config, **{part: whole})  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of a log, by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_arc(root: Path, *, images: int = 5, half_width: float = 1.0) -> Path:
    """Photographs of the room from an arc as wide, with a depth map of each."""
    camera = PinholeCamera(image_size=(160, 120), focal_length=128)
    poses = {
        f"arc à/{number}.png": look_into_the_room(x, -0.3 * abs(x))
        for number, x in enumerate(np.linspace(-half_width, half_width, images))
    }
    return add_depth_maps(write_photographs(root, poses, camera), poses, camera)
