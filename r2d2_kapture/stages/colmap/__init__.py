"""From a folder of images to a COLMAP database."""

from r2d2_kapture.stages.colmap.stage import run

__all__ = ["run"]
