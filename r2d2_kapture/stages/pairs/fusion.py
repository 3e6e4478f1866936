"""Late fusion: the best partners of each image by several lists of pairs.

The operators of scores are those of Csurka and Clinchant, An empirical study of fusion
operators for multimodal image retrieval, CBMI 2012, with equal weights; Humenberger et
al., Investigating the role of image retrieval for visual localization, IJCV 2022,
compare them and round robin for localization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.pairs import Fusion, PairsConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.pair_list import PairList, ranks
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected

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
            mutual = [] if inputs.query else [pairs.swapped()]
            pairs = PairList.joined([pairs, *mutual]).best_of_each(config.partners)
    return Selected(
        pairs=pairs,
        details={"lists": [len(pairs) for pairs in lists]},
        warnings=() if config.fusion == "round_robin" else scale_warning(inputs.lists),
    )


def round_robin(lists: Iterable[PairList], count: int, *, both: bool) -> PairList:
    """The best of each list in turn, then the second best, score 1 / rank.

    Args:
        lists: of pairs; of equal scores the earlier pair comes first.
        count: partners of an image, 0 for all.
        both: a pair is one of its second image too.
    """
    # the scores of a list are its turns: those of equal rank in order of the lists
    turns = PairList.joined(ranked(pairs, both=both) for pairs in lists)
    turns = turns.where(np.lexsort((turns.scores, turns.first)))
    unique = turns.where(turns.first_of_each())
    rank = ranks(unique.first)
    best = dataclasses.replace(unique, scores=1 / (rank + 1.0))
    return best.where(rank < count) if count else best


def ranked(pairs: PairList, *, both: bool) -> PairList:
    """The partners of each image with their ranks, from 0, instead of scores."""
    best_first = pairs.where(np.argsort(-pairs.scores, kind="stable"))
    every = best_first
    if both:  # the same pair twice, one after the other
        rows = np.repeat(np.arange(len(pairs)), 2)
        every = best_first.where(rows)
        first, second = every.first.copy(), every.second.copy()
        first[1::2], second[1::2] = best_first.second, best_first.first
        every = dataclasses.replace(every, first=first, second=second)
    every = every.where(np.argsort(every.first, kind="stable"))
    return dataclasses.replace(every, scores=ranks(every.first).astype(np.float64))


def fused(
    lists: Sequence[PairList], operator: Callable[[ScoreArray], ScoreArray]
) -> PairList:
    """All pairs of several lists, with the operator of their scores.

    A pair that a list lacks has the lowest score of the list; empty lists are left out.
    """
    lists = [pairs for pairs in lists if len(pairs)]
    every = PairList.joined(lists)
    if not len(every):
        return every
    rows, unique_row = every.unordered_rows()
    scores = np.empty((len(lists), len(rows)))
    ends = np.cumsum([len(pairs) for pairs in lists])
    for row, pairs, columns in zip(scores, lists, np.split(unique_row, ends[:-1])):
        row[:] = pairs.scores.min()
        row[columns] = pairs.scores
    return dataclasses.replace(every.where(rows), scores=operator(scores))


def check_images(path: Path, pairs: PairList, inputs: PairInputs) -> None:
    """Refuse pairs of images that are not in the datasets, or of queries alone.

    Raises:
        DatasetError: naming the list and the pair.
    """
    second = inputs.mapping
    first = inputs.query or second
    absent1, absent2 = (
        np.array([name not in known for name in pairs.names], np.bool_)
        for known in (frozenset(first.image_names), frozenset(second.image_names))
    )
    for row in np.flatnonzero(absent1[pairs.first] | absent2[pairs.second])[:1]:
        pair = pairs[int(row)]
        other = bool(absent1[pairs.first[row]])
        name, dataset = (pair.image1, first) if other else (pair.image2, second)
        raise DatasetError(
            f"{path}: pair '{pair.image1}', '{pair.image2}': found no image '{name}' "
            f"in {dataset.root}; "
            + (
                "lists of queries need --query, the first image is the query"
                if inputs.query is None
                else "the first image must be a query, the second of the map"
            )
        )


def check_scores(lists: Mapping[Path, PairList]) -> None:
    """Refuse negative scores, which have no geometric mean.

    Raises:
        DatasetError: naming the list and the score.
    """
    for path, pairs in lists.items():
        least = pairs.scores.min(initial=0.0)
        if least < 0:
            raise DatasetError(
                f"{path}: found a score of {least:g}, expected 0 or more for --fusion "
                "power; choose another --fusion"
            )


def scale_warning(lists: Mapping[Path, PairList]) -> tuple[str, ...]:
    """The warning on lists whose scores cannot be of one scale."""
    ranges = {
        path: (float(pairs.scores.min()), float(pairs.scores.max()))
        for path, pairs in lists.items()
        if len(pairs)
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
