"""Matching of descriptors: pure arrays, no files."""
