"""From a folder of images to a COLMAP database."""

from r2d2_kapture.stages.colmap.sparse import MARK, work_folder
from r2d2_kapture.stages.colmap.stage import run

__all__ = ["MARK", "run", "work_folder"]
