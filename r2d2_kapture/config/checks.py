"""Checks of settings: one line that says what was found and what was expected."""

from __future__ import annotations

from typing import Any, get_args

from r2d2_kapture.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(flag: str, value: object, choices: Any) -> None:
    """Raise ConfigError unless ``value`` is one of a Literal's."""
    listed = get_args(choices)
    require(value in listed, f"{flag}: found {value!r}, expected one of {listed}")
