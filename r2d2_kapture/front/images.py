"""Extraction of single images, from a path, a PIL image or an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import AUTO
from r2d2_kapture.config.rotations import TURNS, read_rotations
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.core.quarter_turns import in_stored_pixels, turned
from r2d2_kapture.errors import ConfigError, ImageError
from r2d2_kapture.front.arguments import make_extractor
from r2d2_kapture.front.features import LocalFeatures
from r2d2_kapture.io.images.decoding import (
    RGBArray,
    check_file,
    read_rgb,
    rgb_of_picture,
)
from r2d2_kapture.models.files import Weights
from r2d2_kapture.stages.extract import turns_like_the_first

ImageLike = str | Path | Image.Image | npt.NDArray[np.uint8]


class ImageExtractor:
    """Extracts the features of single images.

    Attributes:
        extractor: with its weights and settings.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor

    @property
    def checkpoint(self) -> Weights | None:
        """The weights, if any."""
        return self.extractor.weights

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings that determine the features, besides weights and precision."""
        return self.extractor.provenance

    def __call__(self, image: ImageLike, *, turn: Turn = 0) -> LocalFeatures:
        """Extract the features of an image, in pixels of the file.

        Args:
            image: path; PIL image; or (H, W, 3) RGB or (H, W) grey array of uint8. No
                orientation tag is applied.
            turn: degrees clockwise, 0, 90, 180 or 270, by which the network sees it
                turned; see find_turns.

        Raises:
            ImageError: it cannot be read, or is an array of another shape or type.
            ConfigError: another turn.
        """
        require(turn in TURNS, f"turn={turn}: expected one of 0, 90, 180, 270")
        features = self.extractor(turned(read_image(image), turn))
        return LocalFeatures.of(in_stored_pixels(features, turn))

    def __repr__(self) -> str:
        return f"ImageExtractor({self.extractor.label!r}, {dict(self.settings)})"


def find_turns(
    extractor: ImageExtractor,
    images: Sequence[str | Path],
    rotations: str = "auto",
) -> list[Turn]:
    """Quarter turns in which images match the first, for ``extractor(image, turn=)``.

    Args:
        extractor: of the features.
        images: files; the first is seen as EXIF's orientation has it.
        rotations: see ``--rotations`` of kapture_r2d2_extract.

    Returns:
        Degrees clockwise, one for each image.

    Raises:
        ConfigError: no image, or other rotations.
    """
    require(len(images) > 0, "images: found none, expected one or more files")
    paths = [Path(image) for image in images]
    for path in paths:
        check_file(path)
    asked = read_rotations(rotations)
    return turns_like_the_first(extractor.extractor, asked, paths)


def load_extractor(
    model: str | Path | None = None,
    *,
    extractor: str = AUTO,
    device: str | torch.device | None = None,
    preset: str | Path | None = None,
    **settings: Any,
) -> ImageExtractor:
    """Load weights into an extractor.

    Args:
        model: name of a bundled model (``r2d2_v3``, ...), path of a checkpoint or of
            other weights; None is the default model, or none for an extractor without
            weights.
        extractor: ``sift``, ... or a third-party one; auto is the one for the model.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None is the first CUDA device if there
            is one, else the CPU.
        preset: of configs/extract (``fast``, ``aachen``, ...), or path of a YAML file.
        settings: of the extraction, as the flags of kapture_r2d2_extract are named,
            with ``_`` for ``-``: ``top_k=2000``, ``max_size=1600``. They override the
            preset.

    Raises:
        CheckpointError: no such model, or a file that is not a checkpoint.
        ConfigError: a setting is unknown, out of range, or of another extractor.
    """
    if device is not None:
        settings = settings | {"gpu": gpu_index(device)}
    return ImageExtractor(make_extractor(extractor, model, preset, settings))


def gpu_index(device: str | torch.device) -> int:
    """Index of a CUDA device from torch's name of it; -1 is the CPU.

    Raises:
        ConfigError: the name is neither.
    """
    kind, _, index = str(device).partition(":")
    if kind == "cpu" and not index:
        return -1
    if kind == "cuda" and (not index or index.isdecimal()):
        return int(index or 0)
    raise ConfigError(f"device '{device}': expected 'cpu', 'cuda' or 'cuda:N'")


def read_image(image: ImageLike) -> RGBArray:
    """Convert an image argument to (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be read, or the array is not an image.
    """
    if isinstance(image, (str, Path)):
        return read_rgb(Path(image))
    if isinstance(image, Image.Image):
        return rgb_of_picture(image)
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            f"found an array of {array.dtype} {array.shape}, expected uint8 of "
            "(H, W, 3) RGB or (H, W) grey; scale floats to 0..255, remove alpha"
        )
    if not array.size:
        raise ImageError(f"found an array of {array.shape}, expected some pixels")
    return np.ascontiguousarray(array)
