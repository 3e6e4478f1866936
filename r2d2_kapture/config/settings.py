"""Settings dataclasses from names and values, as given by Python and YAML."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

from r2d2_kapture.config.checks import did_you_mean
from r2d2_kapture.config.extract import EXTRACTORS
from r2d2_kapture.config.match import MATCHERS
from r2d2_kapture.config.plugins import Door
from r2d2_kapture.errors import ConfigError

Settings = TypeVar("Settings")
DOORS = {door.kind: door for door in (MATCHERS, EXTRACTORS)}
"""By the field for the settings of the chosen one."""


def names_of(settings: type) -> list[str]:
    """Names of the fields of a settings dataclass."""
    return [field.name for field in dataclasses.fields(settings)]


def door_of(settings: type) -> Door | None:
    """The kind of classes of which a settings dataclass chooses one, if any."""
    return next((DOORS[name] for name in names_of(settings) if name in DOORS), None)


def flat_names(settings: type, values: Mapping[str, Any]) -> list[str]:
    """Names of the fields, and of the settings of its matcher or extractor, if any.

    Args:
        settings: the dataclass.
        values: that may select the matcher or extractor.

    Raises:
        ConfigError: no such matcher or extractor.
    """
    door, names = door_of(settings), names_of(settings)
    if door is None:
        return names
    return names + names_of(_chosen(settings, door, values))


def _chosen(settings: type, door: Door, values: Mapping[str, Any]) -> type:
    """The settings of the named, given or default one.

    Raises:
        ConfigError: no such name.
    """
    chosen = values.get(door.kind, getattr(settings, door.kind))
    return door.settings_of(chosen) if isinstance(chosen, str) else type(chosen)


def make_settings(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build a settings dataclass.

    Args:
        settings: the dataclass.
        values: of its fields; the value of ``matcher`` or ``extractor`` is its
            settings, or its name with its settings as further values.

    Raises:
        ConfigError: an unknown name, a setting of another matcher or extractor, or a
            value of a wrong type or out of range.
    """
    door, known = door_of(settings), flat_names(settings, values)
    if door is not None:
        kind = _chosen(settings, door, values)
        _refuse_settings_of_others(door, getattr(kind, door.kind), values, known)
    refuse_unknown(values, known)
    if door is not None:
        values = _with_chosen(values, door, kind)
    try:
        return settings(**_pythons_numbers(settings, values))
    except TypeError as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ConfigError(f"{shown}: a value of a wrong type: {error}") from error


def _refuse_settings_of_others(
    door: Door, chosen: str, values: Collection[str], known: Collection[str]
) -> None:
    for name, kind in door.settings().items():
        given = [n for n in names_of(kind) if n in values and n not in known]
        if given:
            raise ConfigError(not_of(door, given, chosen, name))


def not_of(door: Door, given: Iterable[str], chosen: str, owner: str) -> str:
    """The error about settings of another matcher or extractor than the chosen one."""
    return (
        f"{', '.join(given)}: found for {chosen}, expected only for {owner}; remove "
        f"it, or choose that {door.kind}"
    )


def _pythons_numbers(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those of NumPy converted to Python's, for JSON.

    Raises:
        ConfigError: a value is no number, or neither true nor false.
    """
    types = get_type_hints(settings)
    return {name: _number(types[name], name, values[name]) for name in values}


def _number(kind: Any, name: str, value: Any) -> Any:
    if kind is bool and not isinstance(value, bool):
        if getattr(value, "dtype", None) != "bool":
            raise ConfigError(f"{name}={value!r}: expected true or false")
        return bool(value)
    if kind not in (int, float):
        return value
    try:
        return operator.index(value) if kind is int else float(value + 0)
    except TypeError as error:
        expected = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name}={value!r}: expected {expected}") from error


def _with_chosen(values: Mapping[str, Any], door: Door, kind: type) -> dict[str, Any]:
    """Collect the settings of the chosen one into one value."""
    own = {name: values[name] for name in names_of(kind) if name in values}
    others = {name: value for name, value in values.items() if name not in own}
    given = others.get(door.kind)
    if given is None or isinstance(given, str):
        return others | {door.kind: make_settings(kind, own)}
    return others | {door.kind: dataclasses.replace(given, **own)}


def refuse_unknown(values: Collection[str], known: Collection[str]) -> None:
    """Refuse unknown names of settings.

    Raises:
        ConfigError: with the nearest known name.
    """
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise ConfigError(f"{name}: no such setting{hint}")
