"""Verification: matches in, a COLMAP database and verified matches out."""

from r2d2_kapture.stages.verify.descriptors import DescriptorSource, open_descriptors
from r2d2_kapture.stages.verify.guided import add_guided
from r2d2_kapture.stages.verify.pairs import (
    ImageSource,
    Pair,
    VerifiedPairs,
    verified_manifest,
    verify_pairs,
)
from r2d2_kapture.stages.verify.stage import run
from r2d2_kapture.stages.verify.two_view import verify_matches

__all__ = [
    "DescriptorSource",
    "ImageSource",
    "Pair",
    "VerifiedPairs",
    "add_guided",
    "open_descriptors",
    "run",
    "verify_matches",
    "verified_manifest",
    "verify_pairs",
]
