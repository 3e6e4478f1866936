"""Figures and picture files; files are written atomically."""
