"""Imports: kapture datasets of what other tools and devices made."""

from r2d2_kapture.stages.imports.stage import run

__all__ = ["run"]
