"""Matching: descriptors of pairs in, matches out."""

from r2d2_kapture.stages.match.inputs import InputReader
from r2d2_kapture.stages.match.stage import run, run_matcher

__all__ = ["InputReader", "run", "run_matcher"]
