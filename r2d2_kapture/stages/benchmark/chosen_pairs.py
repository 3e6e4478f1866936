"""The choice of the pairs of posed images that are evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.posed_images import (
    PosedImage,
    camera_images,
    pairs_with_baseline,
)
from r2d2_kapture.io.kapture.camera_sizes import unlike_cameras
from r2d2_kapture.types import Failure, some_names

Pair = tuple[PosedImage, PosedImage]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenPairs:
    """Pairs to evaluate.

    Attributes:
        pairs: of cameras at different places; at least one.
        at_one_place: pairs left out because their cameras are at the same place.
        not_drawn: pairs left out at random, because there were too many.
        failed: images left out because their file and camera differ in size.
        warnings: requested pairs that are left out.
    """

    pairs: tuple[Pair, ...]
    at_one_place: int = 0
    not_drawn: int = 0
    failed: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_pairs(
    images: Sequence[PosedImage],
    config: PairPosesConfig,
    wanted: Sequence[tuple[str, str]] | None = None,
) -> ChosenPairs:
    """Choose pairs of cameras at different places.

    Args:
        images: with poses.
        config: max_pairs and seed of the sampling.
        wanted: pairs of names, which are not sampled and keep their order; None takes
            all pairs.

    Raises:
        DatasetError: no pair is left, a wanted image has no pose, or no image file has
            the size of its camera.
    """
    unlike = unlike_cameras(camera_images(images), "known cameras")
    if wanted is not None:
        _check_known(images, wanted)
        wanted = [pair for pair in wanted if unlike.keys().isdisjoint(pair)]
    images = [image for image in images if image.name not in unlike]
    usable = pairs_with_baseline(images)
    count = math.comb(len(images), 2)
    if wanted is not None:
        usable, count = _wanted_pairs(images, usable, wanted), len(wanted)
    if not usable:
        raise DatasetError(
            f"found no pair of cameras at different places among {len(images)} images "
            "with poses"
        )
    chosen = usable
    if wanted is None and 0 < config.max_pairs < len(usable):
        rng = np.random.default_rng(config.seed)
        drawn = rng.choice(len(usable), size=config.max_pairs, replace=False)
        chosen = [usable[i] for i in np.sort(drawn)]
    return ChosenPairs(
        pairs=tuple(chosen),
        at_one_place=count - len(usable),
        not_drawn=len(usable) - len(chosen),
        failed=tuple(unlike.values()),
        warnings=_without_baseline(wanted or (), usable),
    )


def _without_baseline(
    wanted: Sequence[tuple[str, str]], usable: Sequence[Pair]
) -> tuple[str, ...]:
    """The warning on listed pairs without epipolar geometry."""
    apart = {(a.name, b.name) for a, b in usable}
    left_out = [", ".join(pair) for pair in wanted if pair not in apart]
    if not left_out:
        return ()
    return (
        f"{len(left_out)} of {len(wanted)} listed pairs are left out, since their "
        "cameras are at the same place and have no epipolar geometry: "
        f"{some_names(left_out)}",
    )


def _check_known(
    images: Sequence[PosedImage], wanted: Sequence[tuple[str, str]]
) -> None:
    """Refuse pairs of images without a pose."""
    unknown = {name for pair in wanted for name in pair}
    unknown -= {image.name for image in images}
    if unknown:
        raise DatasetError(
            f"pairs: image '{min(unknown)}' is not among the {len(images)} with a "
            "known pose; correct the list"
        )


def _wanted_pairs(
    images: Sequence[PosedImage],
    usable: Sequence[Pair],
    wanted: Sequence[tuple[str, str]],
) -> list[Pair]:
    by_name = {image.name: image for image in images}
    apart = {frozenset((a.name, b.name)) for a, b in usable}
    return [(by_name[a], by_name[b]) for a, b in wanted if frozenset((a, b)) in apart]
