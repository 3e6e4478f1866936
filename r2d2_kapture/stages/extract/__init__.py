"""Extraction: images in, local features out."""

from r2d2_kapture.stages.extract.image_names import searched_folders
from r2d2_kapture.stages.extract.stage import extract_images, make_manifest, run
from r2d2_kapture.stages.extract.turns import Turning, turns_like_the_first

__all__ = [
    "Turning",
    "extract_images",
    "make_manifest",
    "run",
    "searched_folders",
    "turns_like_the_first",
]
