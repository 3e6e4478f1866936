"""Mapping: verified matches in, 3D points and poses out."""

from r2d2_kapture.stages.map.checks import left_out, maybe_turned
from r2d2_kapture.stages.map.drawing import draw_model
from r2d2_kapture.stages.map.manifest import map_settings
from r2d2_kapture.stages.map.metric import map_with_priors
from r2d2_kapture.stages.map.priors import find_priors
from r2d2_kapture.stages.map.reconstruct import model_numbers
from r2d2_kapture.stages.map.report import sizes_without_use
from r2d2_kapture.stages.map.stage import CONTENTS, run
from r2d2_kapture.stages.map.workspace import Workspace, read_verified

__all__ = [
    "CONTENTS",
    "Workspace",
    "draw_model",
    "find_priors",
    "left_out",
    "maybe_turned",
    "map_settings",
    "map_with_priors",
    "model_numbers",
    "read_verified",
    "run",
    "sizes_without_use",
]
