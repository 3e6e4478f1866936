"""Pairs: which images to match."""

from r2d2_kapture.stages.pairs.stage import run
from r2d2_kapture.stages.pairs.unpaired import find_unpaired, unpaired_warning

__all__ = ["find_unpaired", "run", "unpaired_warning"]
