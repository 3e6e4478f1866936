"""Local features for visual localization and structure-from-motion, on kapture."""

__version__ = "0.1.0"
