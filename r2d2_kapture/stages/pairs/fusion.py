"""Late fusion: the best partners of each image by several lists of pairs.

The operators of scores are those of Csurka and Clinchant, An empirical study of fusion
operators for multimodal image retrieval, CBMI 2012, with equal weights; Humenberger et
al., Investigating the role of image retrieval for visual localization, IJCV 2022,
compare them and round robin for localization.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.pairs import Fusion, PairsConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.pairs import ImagePair, sorted_pair
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected, best_of_each, swapped

ScoreArray = npt.NDArray[np.float64]
OPERATORS: Mapping[Fusion, Callable[[ScoreArray], ScoreArray]] = {
    "mean": lambda scores: np.mean(scores, axis=0),
    "power": lambda scores: np.prod(scores ** (1 / len(scores)), axis=0),
    "min": lambda scores: np.min(scores, axis=0),
    "max": lambda scores: np.max(scores, axis=0),
}
"""Of (L, P) scores of pairs in lists."""
UNLIKE = 10.0
"""Ratio of the highest scores of two lists that cannot be of one scale."""


def select_by_fusion(config: PairsConfig, inputs: PairInputs) -> Selected:
    """The best pairs of each image by all lists.

    Without queries, a pair is one of both of its images.
    """
    for path, pairs in inputs.lists.items():
        check_images(path, pairs, inputs)
    lists = list(inputs.lists.values())
    if config.fusion == "round_robin":
        pairs = round_robin(lists, config.partners, both=inputs.query is None)
    else:
        if config.fusion == "power":
            check_scores(inputs.lists)
        pairs = fused(lists, OPERATORS[config.fusion])
        if config.partners:
            mutual = [] if inputs.query else map(swapped, pairs)
            pairs = best_of_each([*pairs, *mutual], config.partners)
    return Selected(
        pairs=pairs,
        details={"lists": [len(pairs) for pairs in lists]},
        warnings=() if config.fusion == "round_robin" else scale_warning(inputs.lists),
    )


def round_robin(
    lists: Iterable[Sequence[ImagePair]], count: int, *, both: bool
) -> list[ImagePair]:
    """The best of each list in turn, then the second best, score 1 / rank.

    Args:
        lists: of pairs; of equal scores the earlier pair comes first.
        count: partners of an image, 0 for all.
        both: a pair is one of its second image too.
    """
    rankings: dict[str, list[list[str]]] = defaultdict(list)
    for pairs in lists:
        for image, partners in ranked(pairs, both=both).items():
            rankings[image].append(partners)
    found = []
    for image, listed in rankings.items():
        turns = itertools.chain.from_iterable(itertools.zip_longest(*listed))
        unique = dict.fromkeys(name for name in turns if name is not None)
        for rank, name in enumerate(itertools.islice(unique, count or None), 1):
            found.append(ImagePair(image1=image, image2=name, score=1 / rank))
    return found


def ranked(pairs: Iterable[ImagePair], *, both: bool) -> dict[str, list[str]]:
    """The partners of each image, best first."""
    partners: dict[str, list[str]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: -pair.score):
        partners[pair.image1].append(pair.image2)
        if both:
            partners[pair.image2].append(pair.image1)
    return partners


def fused(
    lists: Sequence[Sequence[ImagePair]],
    operator: Callable[[ScoreArray], ScoreArray],
) -> list[ImagePair]:
    """All pairs of several lists, with the operator of their scores.

    A pair that a list lacks has the lowest score of the list; empty lists are left out.
    """
    lists = [pairs for pairs in lists if pairs]
    first: dict[tuple[str, str], ImagePair] = {}
    for pair in itertools.chain.from_iterable(lists):
        first.setdefault(sorted_pair(*pair.names), pair)
    if not first:
        return []
    column = {names: i for i, names in enumerate(first)}
    scores = np.empty((len(lists), len(first)))
    for row, pairs in zip(scores, lists):
        row[:] = min(pair.score for pair in pairs)
        for pair in pairs:
            row[column[sorted_pair(*pair.names)]] = pair.score
    return [
        dataclasses.replace(pair, score=score)
        for pair, score in zip(first.values(), operator(scores).tolist())
    ]


def check_images(path: Path, pairs: Iterable[ImagePair], inputs: PairInputs) -> None:
    """Refuse pairs of images that are not in the datasets, or of queries alone.

    Raises:
        DatasetError: naming the list and the pair.
    """
    second = inputs.mapping
    first = inputs.query or second
    known1, known2 = set(first.image_names), set(second.image_names)
    for pair in pairs:
        for name, known, dataset in (
            (pair.image1, known1, first),
            (pair.image2, known2, second),
        ):
            if name not in known:
                raise DatasetError(
                    f"{path}: pair '{pair.image1}', '{pair.image2}': found no image "
                    f"'{name}' in {dataset.root}; "
                    + (
                        "lists of queries need --query, the first image is the query"
                        if inputs.query is None
                        else "the first image must be a query, the second of the map"
                    )
                )


def check_scores(lists: Mapping[Path, Collection[ImagePair]]) -> None:
    """Refuse negative scores, which have no geometric mean.

    Raises:
        DatasetError: naming the list and the score.
    """
    for path, pairs in lists.items():
        least = min((pair.score for pair in pairs), default=0.0)
        if least < 0:
            raise DatasetError(
                f"{path}: found a score of {least:g}, expected 0 or more for --fusion "
                "power; choose another --fusion"
            )


def scale_warning(lists: Mapping[Path, Collection[ImagePair]]) -> tuple[str, ...]:
    """The warning on lists whose scores cannot be of one scale."""
    ranges = {
        path: (min(scores), max(scores))
        for path, scores in (
            (p, [x.score for x in pairs]) for p, pairs in lists.items()
        )
        if scores
    }
    tops = [high for _, high in ranges.values()]
    if len(tops) < 2 or max(tops) <= UNLIKE * max(min(tops), 0):
        return ()
    listed = ", ".join(
        f"{path.name} {low:g} to {high:g}" for path, (low, high) in ranges.items()
    )
    return (
        f"scores of the lists are of different scales ({listed}), so that the list of "
        "the largest decides; --fusion round_robin compares ranks",
    )
