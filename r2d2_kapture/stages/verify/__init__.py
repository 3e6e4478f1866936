"""Verification: matches in, a COLMAP database and verified matches out."""

from r2d2_kapture.stages.verify.pairs import (
    ImageSource,
    Pair,
    VerifiedPairs,
    verify_pairs,
)
from r2d2_kapture.stages.verify.stage import run
from r2d2_kapture.stages.verify.two_view import verify_matches

__all__ = [
    "ImageSource",
    "Pair",
    "VerifiedPairs",
    "run",
    "verify_matches",
    "verify_pairs",
]
