"""Pictures of pairs: of two photographs, or of stored data."""

from r2d2_kapture.stages.view.database import run_database
from r2d2_kapture.stages.view.features import run_features
from r2d2_kapture.stages.view.images import run
from r2d2_kapture.stages.view.map_image import run_map

__all__ = ["run", "run_database", "run_features", "run_map"]
