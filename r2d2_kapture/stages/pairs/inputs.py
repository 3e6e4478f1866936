"""What pair methods take and return."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pairs import ImagePair
from r2d2_kapture.matching.pair_selection import (
    Scores,
    Selection,
    best_partners,
    every_with_every,
    exhaustive,
    without_same,
)
from r2d2_kapture.types import Failure


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
        options: how to run.
    """

    mapping: Dataset
    query: Dataset | None
    features: tuple[Path, ...]
    map_path: Path | None
    lists: Mapping[Path, list[ImagePair]]
    keypoints_type: str | None
    descriptors_type: str | None
    global_features_type: str | None
    described: Path
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

    pairs: list[ImagePair]
    failed: tuple[Failure, ...] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def every_pair(inputs: PairInputs) -> list[ImagePair]:
    """All pairs, score 1."""
    first, second = inputs.first_names, inputs.mapping_names
    if inputs.query is None:
        selection = exhaustive(len(first))
    else:
        selection = every_with_every(len(first), len(second))
    return named(selection, first, second)


def best_named(
    config: PairsConfig,
    blocks: Iterable[Scores],
    first: Sequence[str],
    second: Sequence[str],
) -> list[ImagePair]:
    """The best partners of each image, except itself."""
    column = {name: i for i, name in enumerate(second)}
    same = np.array([column.get(name, -1) for name in first], np.int64)
    selection = best_partners(
        without_same(blocks, same), top_k=config.partners, min_score=config.min_score
    )
    return named(selection, first, second)


def named(
    selection: Selection, first: Sequence[str], second: Sequence[str]
) -> list[ImagePair]:
    """Pairs of names, without pairs of an image with itself."""
    return [
        ImagePair(image1=first[i], image2=second[j], score=score)
        for i, j, score in zip(
            selection.first.tolist(),
            selection.second.tolist(),
            selection.scores.tolist(),
        )
        if first[i] != second[j]
    ]


def best_of_each(pairs: Iterable[ImagePair], count: int) -> list[ImagePair]:
    """The best pairs of each first image, in their original order.

    Of duplicates in the same order of names, the first is kept.
    """
    first: dict[tuple[str, str], ImagePair] = {}
    for pair in pairs:
        first.setdefault(pair.names, pair)
    ranked = sorted(first.values(), key=best_first)
    kept = {
        pair.names
        for _, group in itertools.groupby(ranked, key=lambda pair: pair.image1)
        for pair in itertools.islice(group, count)
    }
    return [pair for names, pair in first.items() if names in kept]


def best_first(pair: ImagePair) -> tuple[str, float, str]:
    """Key that orders pairs by their first image, then by descending score."""
    return pair.image1, -pair.score, pair.image2


def swapped(pair: ImagePair) -> ImagePair:
    """The pair with its images in the other order."""
    return dataclasses.replace(pair, image1=pair.image2, image2=pair.image1)
