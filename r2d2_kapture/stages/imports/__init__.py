"""Imports: kapture datasets of what other tools and devices made."""

from r2d2_kapture.stages.imports.colmap import run as import_colmap
from r2d2_kapture.stages.imports.database_features import import_descriptors
from r2d2_kapture.stages.imports.stage import run

__all__ = ["import_colmap", "import_descriptors", "run"]
