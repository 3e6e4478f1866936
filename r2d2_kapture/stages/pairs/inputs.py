"""What pair methods take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pairs import PairList
from r2d2_kapture.matching.pair_selection import (
    Selection,
    every_with_every,
    exhaustive,
)
from r2d2_kapture.types import Failure, IndexArray

PAIR_BYTES = 64
"""Peak memory of a pair of all with all, until it is written."""


@dataclass(frozen=True, kw_only=True)
class PairInputs:
    """The inputs of pair methods.

    Attributes:
        mapping: images that are paired with each other or with queries.
        query: images that are paired with mapping images; may be None.
        features: kapture datasets or folders of features.
        map_path: of an existing map.
        lists: of pairs, by their file.
        keypoints_type, descriptors_type, global_features_type: names; None takes the
            only existing one.
        described: kapture folder for computed features.
        store: layout of computed features, and of matches.
        options: how to run.
    """

    mapping: Dataset
    query: Dataset | None
    features: tuple[Path, ...]
    map_path: Path | None
    lists: Mapping[Path, PairList]
    keypoints_type: str | None
    descriptors_type: str | None
    global_features_type: str | None
    described: Path
    store: Store
    options: RunOptions

    @property
    def mapping_names(self) -> list[str]:
        """Mapping images by name."""
        return sorted(self.mapping.image_names)

    @property
    def first_names(self) -> list[str]:
        """Images to be paired, by name."""
        return sorted((self.query or self.mapping).image_names)


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Pairs of one method, in any order.

    Attributes:
        pairs: query first, where there are queries.
        failed: images without pairs because an input is missing.
        details, warnings: for the report.
    """

    pairs: PairList
    failed: tuple[Failure, ...] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def every_pair(config: PairsConfig, inputs: PairInputs) -> PairList:
    """All pairs, score 1.

    Raises:
        ConfigError: they would need more than --memory-gb.
    """
    first, second = inputs.first_names, inputs.mapping_names
    count = len(first) * len(second)
    if inputs.query is None:
        count = len(first) * (len(first) - 1) // 2
    needed = count * PAIR_BYTES / 1e9
    require(
        needed <= config.memory_gb,
        f"--method {config.method}: found {count} pairs of all images with all, which "
        f"need {needed:.1f} GB, expected at most --memory-gb ({config.memory_gb:g}); "
        "choose another method, which matches fewer, or raise it",
    )
    if inputs.query is None:
        selection = exhaustive(len(first))
    else:
        selection = every_with_every(len(first), len(second))
    return named(selection, first, second)


def named(
    selection: Selection, first: Sequence[str], second: Sequence[str]
) -> PairList:
    """Pairs of names, without pairs of an image with itself."""
    names = sorted({*first, *second})
    place = {name: i for i, name in enumerate(names)}
    place1, place2 = (
        np.array([place[name] for name in listed], np.int32)
        for listed in (first, second)
    )
    pairs = PairList(
        names=tuple(names),
        first=place1[selection.first],
        second=place2[selection.second],
        scores=selection.scores,
    )
    same = pairs.first == pairs.second
    return pairs.where(~same) if same.any() else pairs


def same_places(first: Sequence[str], second: Sequence[str]) -> IndexArray:
    """(N,) for each image its index among others; -1 where it is not among them."""
    place = {name: i for i, name in enumerate(second)}
    return np.array([place.get(name, -1) for name in first], np.int64)
