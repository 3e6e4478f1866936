"""Slices: the parts of a list of items that several runs share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from r2d2_kapture.errors import ConfigError

Item = TypeVar("Item")

WHOLE = "1/1"
"""The slice that is everything."""
ALL = "all"
"""Asks for all slices to be put together."""


@dataclass(frozen=True, kw_only=True, order=True)
class Slice:
    """Consecutive items of a list, as many as those of other slices, or one more.

    Attributes:
        number: of the slice, from 1.
        count: of slices.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of the slice, in their order."""
        first, end = (
            len(items) * number // self.count
            for number in (self.number - 1, self.number)
        )
        return items[first:end]


@dataclass(frozen=True, kw_only=True)
class SharedWork:
    """Slices of an output that have to be made.

    Attributes:
        unit: of the items, in the singular.
        items: how many there are.
        lacking: at most how many of them the output lacks.
        begun: number of slices that earlier runs divided the items into, if any did.
        unfinished: gives those of so many slices that are not finished.
        output: that they are of.
        folder: of the slices; whoever makes one has to see it.
    """

    unit: str
    items: int
    lacking: int
    begun: int | None
    unfinished: Callable[[int], Sequence[Slice]]
    output: Path
    folder: Path


def read_slice(text: str, *, or_all: bool = False) -> Slice:
    """The slice ``i/n``, of ``all`` the whole.

    Args:
        text: of ``--slice``.
        or_all: whether it may be ``all``.

    Raises:
        ConfigError: it is something else.
    """
    found = re.fullmatch(
        r"(\d{1,9})/(\d{1,9})", WHOLE if or_all and text == ALL else text
    )
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        expected = "i/n with i from 1 to n" + (f", or {ALL}" if or_all else "")
        raise ConfigError(f"--slice: found {text!r}, expected {expected}")
    return Slice(number=number, count=count)
