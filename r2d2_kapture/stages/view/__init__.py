"""Pictures of pairs: of two photographs, or of what is stored already."""

from r2d2_kapture.stages.view.images import run

__all__ = ["run"]
