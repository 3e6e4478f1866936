"""Photographs kept from training, and pairs made of them with known homographies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.training.pairs import RGBArray
from r2d2_kapture.training.photometry import Photometry
from r2d2_kapture.training.transforms import scaled_view, tilted_view
from r2d2_kapture.training.views import (
    DoubleArray,
    Picture,
    WarpedView,
    apply_homography,
)

HELD_OUT_SHARE = 0.05
MAX_HELD_OUT = 16
LEAST_PHOTOGRAPHS = 2
SIDE = 480
"""Longest side in pixels of an image to validate on."""
LEAST_CHANGE, MOST_CHANGE = 1.1, 2.0
"""Scale change of the mildest and of the strongest pair."""
MOST_TILT = np.radians(50.0)
MOST_ROTATION = np.radians(30.0)
MOST_NOISE = 8.0
LEAST_LIGHT = 0.6


@dataclass(frozen=True, kw_only=True, eq=False)
class HomographyPair:
    """Two images of one plane.

    Attributes:
        name: of the photograph.
        image1, image2: (H, W, 3) uint8 RGB, of their own sizes.
        H_2_from_1: (3, 3) maps pixels of image 1 to image 2, (0, 0) at the centre of
            the top-left pixel.
    """

    name: str
    image1: RGBArray
    image2: RGBArray
    H_2_from_1: DoubleArray


def hold_out(
    paths: Sequence[Path], root: Path
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Keep a few photographs from training, always the same: by hash of their names.

    About one in twenty, at most 16 and at least one; a photograph that comes or goes
    changes little. A single photograph is both trained and validated on.

    Args:
        paths: of photographs.
        root: folder that their names are relative to.

    Returns:
        Those to train on, in order, and those to validate on, by falling rank.
    """
    ranks = {path: _rank(_name(path, root)) for path in paths}
    ordered = sorted(paths, key=ranks.__getitem__)
    if len(ordered) < LEAST_PHOTOGRAPHS:
        return tuple(paths), tuple(paths)
    below = sum(rank < HELD_OUT_SHARE for rank in ranks.values())
    held_out = ordered[: min(max(below, 1), MAX_HELD_OUT)]
    kept_from = set(held_out)
    return tuple(path for path in paths if path not in kept_from), tuple(held_out)


def homography_pair(
    name: str, pixels: RGBArray, strength: float, seed: int
) -> HomographyPair:
    """A photograph, and the same seen from elsewhere in another light.

    Args:
        name: of the photograph.
        pixels: (H, W, 3) uint8 RGB.
        strength: 0 (mildest) to 1 (strongest).
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    picture = Picture(pixels=pixels)
    factor = min(1.0, SIDE / min(picture.size))
    change = LEAST_CHANGE ** (1 - strength) * MOST_CHANGE**strength
    view1 = scaled_view(picture, factor)
    view2 = tilted_view(
        picture,
        factor * change ** rng.uniform(-1, 1),
        rotation=strength * MOST_ROTATION * rng.uniform(-1, 1),
        tilt=strength * MOST_TILT,
        tilt_axis=rng.uniform(0, 2 * np.pi),
        focal=max(picture.size),
        photometry=Photometry(
            brightness=1 - strength * (1 - LEAST_LIGHT) * rng.uniform(),
            contrast=1 - strength * (1 - LEAST_LIGHT) * rng.uniform(),
            noise=strength * MOST_NOISE,
            noise_seed=seed,
        ),
    )
    image1, picture_from_1 = _middle_crop(view1)
    image2, picture_from_2 = _middle_crop(view2)
    return HomographyPair(
        name=name,
        image1=image1,
        image2=image2,
        H_2_from_1=np.linalg.inv(picture_from_2) @ picture_from_1,
    )


def seed_of(name: str) -> int:
    """A seed of 63 bits for a name."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _rank(name: str) -> float:
    return seed_of(name) / 2**63


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _middle_crop(view: WarpedView) -> tuple[RGBArray, DoubleArray]:
    """The square around the picture's middle, and its map to the picture's pixels."""
    side = min(SIDE, *view.size)
    view_from_picture = np.asarray(np.linalg.inv(view.picture_from_view), np.float64)
    middle = np.array([view.picture.size], dtype=np.float64) / 2
    seen = apply_homography(view_from_picture, middle)[0]
    left, top = (
        int(np.clip(round(at - side / 2), 0, length - side))
        for at, length in zip(seen, view.size, strict=True)
    )
    view_from_crop = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], dtype=np.float64)
    return view.crop((left, top), side), view.picture_from_view @ view_from_crop
