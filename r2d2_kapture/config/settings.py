"""Settings dataclasses from names and values, as given by Python and YAML."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

from r2d2_kapture.config.checks import did_you_mean
from r2d2_kapture.config.extract import (
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.config.match import MutualNearestConfig, settings_of_matcher
from r2d2_kapture.errors import ConfigError

Settings = TypeVar("Settings")
MATCHER = "matcher"
"""Field for the settings of a matcher."""
SECTIONS: Mapping[str, type] = {
    "pyramid": PyramidConfig,
    "selection": SelectionConfig,
    "d2net": D2NetConfig,
    "engine": EngineConfig,
}
"""Sections of ExtractConfig, whose settings have a flat list of names."""
FAMILY_OF_SECTION = {"pyramid": "r2d2", "selection": "r2d2", "d2net": "d2net"}


def names_of(settings: type) -> list[str]:
    """Names of the fields of a settings dataclass."""
    return [field.name for field in dataclasses.fields(settings)]


def flat_names(settings: type, values: Mapping[str, Any]) -> list[str]:
    """Names of the fields, and of the settings of its matcher, if any.

    Args:
        settings: the dataclass.
        values: that may select the matcher.

    Raises:
        ConfigError: no such matcher.
    """
    names = names_of(settings)
    if MATCHER not in names:
        return names
    return names + names_of(chosen_matcher(values))


def chosen_matcher(values: Mapping[str, Any]) -> type:
    """The settings of the named, given or default matcher.

    Raises:
        ConfigError: no such matcher.
    """
    chosen = values.get(MATCHER, MutualNearestConfig.matcher)
    return settings_of_matcher(chosen) if isinstance(chosen, str) else type(chosen)


def make_settings(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build a settings dataclass.

    Args:
        settings: the dataclass.
        values: of its fields; the value of ``matcher`` is its settings, or its name
            with its settings as further values.

    Raises:
        ConfigError: an unknown name, or a value of a wrong type or out of range.
    """
    refuse_unknown(values, flat_names(settings, values))
    if MATCHER in names_of(settings):
        values = _with_matcher(values, chosen_matcher(values))
    try:
        return settings(**_pythons_numbers(settings, values))
    except TypeError as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ConfigError(f"{shown}: a value of a wrong type: {error}") from error


def _pythons_numbers(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with NumPy numbers converted to Python's, for JSON.

    Raises:
        ConfigError: a value is not a number.
    """
    types = get_type_hints(settings)
    return {name: _number(types[name], name, values[name]) for name in values}


def _number(kind: Any, name: str, value: Any) -> Any:
    if kind not in (int, float):
        return value
    try:
        return operator.index(value) if kind is int else float(value + 0)
    except TypeError as error:
        expected = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name}={value!r}: expected {expected}") from error


def extract_config(values: Mapping[str, Any], family: str) -> ExtractConfig:
    """Settings of extraction from a flat list of names.

    Args:
        values: by the names of the fields of PyramidConfig, SelectionConfig,
            D2NetConfig and EngineConfig.
        family: of the network; settings of other families are refused.

    Raises:
        ConfigError: an unknown name, a setting of another family, or a bad value.
    """
    of_section = {section: names_of(kind) for section, kind in SECTIONS.items()}
    refuse_unknown(values, sum(of_section.values(), []))
    for section, names in of_section.items():
        given = [name for name in names if name in values]
        if given and FAMILY_OF_SECTION.get(section, family) != family:
            raise ConfigError(
                f"{', '.join(given)}: found for a model of {family}, expected only for "
                f"those of {FAMILY_OF_SECTION[section]}; remove it"
            )
    return ExtractConfig(
        **{
            section: make_settings(
                kind, {n: values[n] for n in of_section[section] if n in values}
            )
            for section, kind in SECTIONS.items()
        }
    )


def _with_matcher(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Collect the settings of the matcher into one value."""
    own = {name: values[name] for name in names_of(kind) if name in values}
    others = {name: value for name, value in values.items() if name not in own}
    given = others.get(MATCHER)
    if given is None or isinstance(given, str):
        return others | {MATCHER: make_settings(kind, own)}
    return others | {MATCHER: dataclasses.replace(given, **own)}


def refuse_unknown(values: Collection[str], known: Collection[str]) -> None:
    """Refuse unknown names of settings.

    Raises:
        ConfigError: with the nearest known name.
    """
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise ConfigError(f"{name}: no such setting{hint}")
