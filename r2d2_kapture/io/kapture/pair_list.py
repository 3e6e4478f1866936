"""Lists of image pairs as arrays: 16 bytes a pair, each name once."""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from r2d2_kapture.types import IndexArray

BLOCK_PAIRS = 1 << 16
"""Pairs that are Python objects at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePair:
    """Two images to match.

    Attributes:
        image1, image2: their names; image 1 is the query where there is one.
        score: how alike they seem, higher is better.
    """

    image1: str
    image2: str
    score: float = 1.0

    @property
    def names(self) -> tuple[str, str]:
        """The names as they are ordered here."""
        return self.image1, self.image2


@dataclass(frozen=True, kw_only=True, eq=False)
class PairList(Sequence[ImagePair]):
    """Pairs in some order, which are made into ImagePair as they are asked for.

    Attributes:
        names: of images, in order, each once; some may be in no pair.
        first, second: (K,) int32 indices of the names.
        scores: (K,) float64.
    """

    names: tuple[str, ...]
    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]

    @staticmethod
    def of(pairs: Iterable[ImagePair]) -> PairList:
        """The pairs in their order."""
        if isinstance(pairs, PairList):
            return pairs
        collected = PairCollector()
        for pair in pairs:
            collected.add(
                collected.index(pair.image1), collected.index(pair.image2), pair.score
            )
        return collected.pairs()

    @staticmethod
    def from_indices(
        names: Sequence[str],
        first: npt.NDArray[np.integer],
        second: npt.NDArray[np.integer],
        scores: npt.NDArray[np.float64],
    ) -> PairList:
        """Pairs of indices of names, which are unique and in any order."""
        order = sorted(range(len(names)), key=names.__getitem__)
        place = np.empty(len(names), np.int32)
        place[order] = np.arange(len(names), dtype=np.int32)
        return PairList(
            names=tuple(names[i] for i in order),
            first=place[first],
            second=place[second],
            scores=scores,
        )

    @staticmethod
    def joined(lists: Iterable[PairList]) -> PairList:
        """The pairs of several lists, one after another."""
        listed = [pairs for pairs in lists if len(pairs)]
        if len(listed) == 1:
            return listed[0]
        names = tuple(sorted(set().union(*(pairs.names for pairs in listed))))
        index = {name: i for i, name in enumerate(names)}
        places = [
            np.array([index[name] for name in pairs.names], np.int32)
            for pairs in listed
        ]
        none = np.zeros(0, np.int32)
        return PairList(
            names=names,
            first=np.concatenate([none, *(p[x.first] for p, x in zip(places, listed))]),
            second=np.concatenate(
                [none, *(p[x.second] for p, x in zip(places, listed))]
            ),
            scores=np.concatenate([np.zeros(0), *(pairs.scores for pairs in listed)]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> ImagePair: ...

    @overload
    def __getitem__(self, index: slice) -> PairList: ...

    def __getitem__(self, index: int | slice) -> ImagePair | PairList:
        if isinstance(index, slice):
            return self.where(index)
        return ImagePair(
            image1=self.names[self.first[index]],
            image2=self.names[self.second[index]],
            score=float(self.scores[index]),
        )

    def __iter__(self) -> Iterator[ImagePair]:
        names = self.names
        for i, j, score in self.rows():
            yield ImagePair(image1=names[i], image2=names[j], score=score)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other))

    def rows(self) -> Iterator[tuple[int, int, float]]:
        """Indices of the names, and the score, of each pair."""
        for start in range(0, len(self), BLOCK_PAIRS):
            rows = slice(start, start + BLOCK_PAIRS)
            yield from zip(
                self.first[rows].tolist(),
                self.second[rows].tolist(),
                self.scores[rows].tolist(),
            )

    @property
    def images(self) -> list[str]:
        """Images that are in a pair, in order of names."""
        return [self.names[i] for i in np.flatnonzero(self._used())]

    @property
    def digest(self) -> str:
        """SHA-256 of the pairs, their order and their scores."""
        used = self._used()
        place = (np.cumsum(used) - 1).astype("<i4")
        digest = hashlib.sha256("\n".join(self.images).encode("utf-8", "replace"))
        for indices in (self.first, self.second):
            digest.update(place[indices].tobytes())
        digest.update(self.scores.astype("<f8").tobytes())
        return digest.hexdigest()

    def where(self, rows: slice | IndexArray | npt.NDArray[np.bool_]) -> PairList:
        """Some of the pairs, in the order of the rows."""
        return dataclasses.replace(
            self,
            first=self.first[rows],
            second=self.second[rows],
            scores=self.scores[rows],
        )

    def holding(self, names: Iterable[str]) -> npt.NDArray[np.int8]:
        """(K,) how many of the two images of each pair are among some."""
        chosen = frozenset(names)
        known = np.array([name in chosen for name in self.names], np.int8)
        return np.asarray(known[self.first] + known[self.second])

    def swapped(self) -> PairList:
        """The pairs with their images in the other order."""
        return dataclasses.replace(self, first=self.second, second=self.first)

    def in_name_order(self) -> PairList:
        """The pairs with their images in order of names."""
        return dataclasses.replace(
            self,
            first=np.minimum(self.first, self.second),
            second=np.maximum(self.first, self.second),
        )

    def best_first(self) -> PairList:
        """The pairs by their first image, then by descending score."""
        return self.where(self._ranking())

    def unique(self) -> PairList:
        """Each unordered pair once, as it came first."""
        keys = self.in_name_order()._keys()
        ordered = np.sort(keys)
        if np.all(ordered[1:] != ordered[:-1]):  # no need to know where they are
            return self
        return self.where(_first_of_each(keys))

    def first_of_each(self) -> IndexArray:
        """Rows at which two images in their order come first, in order."""
        return _first_of_each(self._keys())

    def unordered_rows(self) -> tuple[IndexArray, IndexArray]:
        """Rows of unique(), and for each pair the one of these that it is."""
        keys = self.in_name_order()._keys()
        rows = _first_of_each(keys)
        order = np.argsort(keys[rows])
        return rows, order[np.searchsorted(keys[rows], keys, sorter=order)]

    def best_of_each(self, count: int) -> PairList:
        """The best pairs of each first image, in their original order.

        Of duplicates in the same order of names, the first is kept.
        """
        kept = self.where(self.first_of_each())
        ranking = kept._ranking()
        rank = ranks(kept.first[ranking])
        return kept.where(np.sort(ranking[rank < count]))

    def _used(self) -> npt.NDArray[np.bool_]:
        used = np.zeros(len(self.names), np.bool_)
        used[self.first] = used[self.second] = True
        return used

    def _keys(self) -> IndexArray:
        """(K,) a number for each two images in their order."""
        return self.first.astype(np.int64) * len(self.names) + self.second

    def _ranking(self) -> IndexArray:
        return np.lexsort((self.second, -self.scores, self.first))


@dataclass(kw_only=True)
class PairCollector:
    """A list of pairs that grows.

    Attributes:
        indices: of the names, in the order in which they came.
        first, second, scores: of the pairs.
    """

    indices: dict[str, int] = field(default_factory=dict)
    first: array[int] = field(default_factory=lambda: array("i"))
    second: array[int] = field(default_factory=lambda: array("i"))
    scores: array[float] = field(default_factory=lambda: array("d"))

    def index(self, name: str) -> int:
        """The index of a name, which may be new."""
        return self.indices.setdefault(name, len(self.indices))

    def add(self, first: int, second: int, score: float) -> None:
        """Append a pair of indices of names."""
        self.first.append(first)
        self.second.append(second)
        self.scores.append(score)

    def pairs(self) -> PairList:
        """The list; nothing can be added any more."""
        return PairList.from_indices(
            list(self.indices),
            np.frombuffer(self.first, np.int32),
            np.frombuffer(self.second, np.int32),
            np.frombuffer(self.scores, np.float64),
        )


def sorted_pair(image1: str, image2: str) -> tuple[str, str]:
    """The names of a pair in order, which is the same for (a, b) and (b, a)."""
    return (image1, image2) if image1 <= image2 else (image2, image1)


def ranks(groups: npt.NDArray[np.integer]) -> IndexArray:
    """(K,) places of sorted values among those equal to them, from 0."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    lengths = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, lengths)


def _first_of_each(keys: IndexArray) -> IndexArray:
    """Rows at which a value comes first, in order."""
    return np.sort(np.unique(keys, return_index=True)[1])
