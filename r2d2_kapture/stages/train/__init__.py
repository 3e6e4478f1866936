"""Training: photographs or posed images in, a checkpoint out."""

from r2d2_kapture.stages.train.stage import run

__all__ = ["run"]
