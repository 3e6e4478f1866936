"""Benchmarks: homography sequences and pairs of known cameras."""

from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures

__all__ = ["ExtractedFeatures"]
