"""Extractors: an image in, LocalFeatures out. Each has its own pyramid loop."""
