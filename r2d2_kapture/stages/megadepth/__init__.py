"""MegaDepth: undistorted images, depth and overlaps for training."""

from r2d2_kapture.stages.megadepth.layout import SCENE_INFO_FOLDER
from r2d2_kapture.stages.megadepth.scene_info import (
    SceneInfo,
    read_depth,
    read_scene_info,
    read_scene_list,
)
from r2d2_kapture.stages.megadepth.stage import run

__all__ = [
    "SCENE_INFO_FOLDER",
    "SceneInfo",
    "read_depth",
    "read_scene_info",
    "read_scene_list",
    "run",
]
