"""Readers of known benchmarks of visual localization, as their authors lay them out."""
