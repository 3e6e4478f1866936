"""Extraction: images in, local features out."""

from r2d2_kapture.stages.extract.image_names import searched_folders
from r2d2_kapture.stages.extract.stage import extract_images, make_manifest, run

__all__ = ["extract_images", "make_manifest", "run", "searched_folders"]
