"""Checks of settings: one-line errors with what was found and what was expected."""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from r2d2_kapture.errors import ConfigError

T = TypeVar("T")
GPU_INDEX = "a device index, or -1 for the CPU"
"""Expected of ``--gpu``."""


class Ends(TypedDict, total=False):
    """Ends of a range of numbers; NaN is in none."""

    at_least: float
    above: float
    at_most: float
    below: float


_WITHIN: Mapping[str, Callable[[Any, Any], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def bounded(default: T, *, note: str = "", **ends: Unpack[Ends]) -> T:
    """A number among ``Checked`` settings; None, and a Literal of its type, pass too.

    Args:
        default: of the setting.
        note: what is expected, for the error; by default the range.
        ends: of the range, of which the lower one is required.
    """
    metadata = {"ends": ends, "expected": note or _in_words(ends)}
    return dataclasses.field(default=default, metadata=metadata)


def _in_words(ends: Ends) -> str:
    start = f"above {ends['above']}" if "above" in ends else str(ends["at_least"])
    if "at_most" in ends:
        return f"{start} to {ends['at_most']}"
    if ends.get("below", math.inf) < math.inf:
        return f"{start} to below {ends['below']}"
    return start if "above" in ends else f"{start} or more"


class Checked:
    """Base of settings dataclasses whose values are checked when they are made.

    Fields made by ``bounded`` must be in their range, those whose type has a Literal
    must have one of its values. Checks between fields follow in a ``__post_init__``
    that begins with this one.

    Raises:
        ConfigError: a value is out of range, or none of the choices.
    """

    def __post_init__(self) -> None:
        settings: Any = type(self)
        for field in dataclasses.fields(settings):
            _check(field, _kinds(settings)[field.name], getattr(self, field.name))


def _check(field: Field[Any], kinds: Collection[Any], value: Any) -> None:
    literals = [kind for kind in kinds if get_origin(kind) is Literal]
    choices = [choice for kind in literals for choice in get_args(kind)]
    if value in choices or (value is None and NoneType in kinds):
        return
    flag = f"--{field.name.replace('_', '-')}"
    if choices and set(kinds) <= {*literals, NoneType, bool}:
        listed = [*(["true", "false"] if bool in kinds else []), *map(str, choices)]
        require(
            bool in kinds and isinstance(value, bool),
            f"{flag}: found {value!r}, expected one of {', '.join(listed)}",
        )
    for name, end in field.metadata.get("ends", {}).items():
        require(
            isinstance(value, Real) and _WITHIN[name](value, end),
            f"{flag}: found {value}, expected {field.metadata['expected']}",
        )


@cache
def _kinds(settings: type) -> dict[str, tuple[Any, ...]]:
    """The alternatives of the type of each field."""
    return {
        name: get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        for name, kind in get_type_hints(settings).items()
    }


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the nearest known name, if
    similar."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name most similar to another; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
