"""Local features for visual localization and structure-from-motion, on kapture.

    import r2d2_kapture as rk

    extractor = rk.load_extractor("r2d2_v3", top_k=2000)
    a, b = extractor("a.jpg"), extractor("b.jpg")
    verified = rk.verify(a, b, rk.match(a, b))
    figure = rk.plot_matches("a.jpg", "b.jpg", a, b, verified)

docs/python.md describes every name. Heavy modules are loaded on first use.
"""

from __future__ import annotations

import importlib
import zlib  # noqa: F401  (before pycolmap, which exports a zlib of its own)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r2d2_kapture.config.run import RunOptions as RunOptions
    from r2d2_kapture.errors import R2D2KaptureError as R2D2KaptureError
    from r2d2_kapture.front.drawing import plot_keypoints as plot_keypoints
    from r2d2_kapture.front.drawing import plot_matches as plot_matches
    from r2d2_kapture.front.drawing import plot_overlay as plot_overlay
    from r2d2_kapture.front.features import LocalFeatures as LocalFeatures
    from r2d2_kapture.front.images import ImageExtractor as ImageExtractor
    from r2d2_kapture.front.images import find_turns as find_turns
    from r2d2_kapture.front.images import load_extractor as load_extractor
    from r2d2_kapture.front.localizer import Localization as Localization
    from r2d2_kapture.front.localizer import Localizer as Localizer
    from r2d2_kapture.front.refinement import refine_matches as refine_matches
    from r2d2_kapture.front.reports import report_map as report_map
    from r2d2_kapture.front.reports import report_pipeline as report_pipeline
    from r2d2_kapture.front.reports import report_results as report_results
    from r2d2_kapture.front.results import plot_results as plot_results
    from r2d2_kapture.front.results import results_table as results_table
    from r2d2_kapture.front.stages import build_map as build_map
    from r2d2_kapture.front.stages import choose_pairs as choose_pairs
    from r2d2_kapture.front.stages import evaluate as evaluate
    from r2d2_kapture.front.stages import evaluate_pairs as evaluate_pairs
    from r2d2_kapture.front.stages import evaluate_sequences as evaluate_sequences
    from r2d2_kapture.front.stages import export as export
    from r2d2_kapture.front.stages import export_model as export_model
    from r2d2_kapture.front.stages import extract as extract
    from r2d2_kapture.front.stages import extract_images as extract_images
    from r2d2_kapture.front.stages import import_dataset as import_dataset
    from r2d2_kapture.front.stages import localize as localize
    from r2d2_kapture.front.stages import match_pairs as match_pairs
    from r2d2_kapture.front.stages import refine_keypoints as refine_keypoints
    from r2d2_kapture.front.stages import run_pipeline as run_pipeline
    from r2d2_kapture.front.stages import verify_pairs as verify_pairs
    from r2d2_kapture.front.views import view_database as view_database
    from r2d2_kapture.front.views import view_map as view_map
    from r2d2_kapture.front.views import view_pair as view_pair
    from r2d2_kapture.front.views import view_stored_pair as view_stored_pair
    from r2d2_kapture.stages.two_view import VerifiedMatches as VerifiedMatches
    from r2d2_kapture.stages.two_view import match as match
    from r2d2_kapture.stages.two_view import verify as verify
    from r2d2_kapture.types import PairMatches as PairMatches
    from r2d2_kapture.types import Report as Report

__version__ = "0.1.0"

_MODULES = {
    "config.run": ("RunOptions",),
    "errors": ("R2D2KaptureError",),
    "front.drawing": ("plot_keypoints", "plot_matches", "plot_overlay"),
    "front.features": ("LocalFeatures",),
    "front.images": ("ImageExtractor", "find_turns", "load_extractor"),
    "front.localizer": ("Localization", "Localizer"),
    "front.reports": ("report_map", "report_pipeline", "report_results"),
    "front.refinement": ("refine_matches",),
    "front.results": ("plot_results", "results_table"),
    "front.stages": (
        "build_map",
        "choose_pairs",
        "evaluate",
        "evaluate_pairs",
        "evaluate_sequences",
        "export",
        "export_model",
        "extract",
        "extract_images",
        "import_dataset",
        "localize",
        "match_pairs",
        "refine_keypoints",
        "run_pipeline",
        "verify_pairs",
    ),
    "front.views": ("view_database", "view_map", "view_pair", "view_stored_pair"),
    "stages.two_view": ("VerifiedMatches", "match", "verify"),
    "types": ("PairMatches", "Report"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
