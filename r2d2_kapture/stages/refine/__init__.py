"""Refinement: keypoints of verified matches in, sub-pixel places out."""

from r2d2_kapture.stages.refine.results import read_steps
from r2d2_kapture.stages.refine.stage import run

__all__ = ["read_steps", "run"]
