"""Matching: descriptors of pairs in, matches out."""

from r2d2_kapture.stages.match.cache import LoadingCache
from r2d2_kapture.stages.match.inputs import InputReader
from r2d2_kapture.stages.match.stage import run, run_matcher

__all__ = ["InputReader", "LoadingCache", "run", "run_matcher"]
