"""Refinement: keypoints of verified matches in, sub-pixel places out."""

from r2d2_kapture.stages.refine.stage import run

__all__ = ["run"]
