"""Checks of settings: one-line errors with what was found and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, get_args

from r2d2_kapture.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(flag: str, value: object, choices: Any) -> None:
    """Raise ConfigError unless ``value`` is one of a Literal's."""
    listed = get_args(choices)
    require(
        value in listed,
        f"{flag}: found {value!r}, expected one of {', '.join(map(str, listed))}",
    )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the nearest known name, if
    similar."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name most similar to another; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
