"""Mapping: verified matches in, 3D points and poses out."""

from r2d2_kapture.stages.map.checks import left_out
from r2d2_kapture.stages.map.drawing import draw_model
from r2d2_kapture.stages.map.reconstruct import map_unknown_poses, model_numbers
from r2d2_kapture.stages.map.stage import run
from r2d2_kapture.stages.map.workspace import Workspace, read_verified

__all__ = [
    "Workspace",
    "draw_model",
    "left_out",
    "map_unknown_poses",
    "model_numbers",
    "read_verified",
    "run",
]
