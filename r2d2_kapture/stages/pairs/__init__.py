"""Pairs: which images to match."""

from r2d2_kapture.stages.pairs.stage import run

__all__ = ["run"]
