"""Settings dataclasses out of names and values, as Python and YAML give them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from r2d2_kapture.config.extract import (
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.errors import ConfigError

Settings = TypeVar("Settings")
SECTIONS: Mapping[str, type] = {
    "pyramid": PyramidConfig,
    "selection": SelectionConfig,
    "d2net": D2NetConfig,
    "engine": EngineConfig,
}
"""Of ExtractConfig, whose settings go by one flat list of names."""
FAMILY_OF_SECTION = {"pyramid": "r2d2", "selection": "r2d2", "d2net": "d2net"}


def names_of(settings: type) -> list[str]:
    """Names of the fields of a settings dataclass."""
    return [field.name for field in dataclasses.fields(settings)]


def make_settings(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build a settings dataclass.

    Raises:
        ConfigError: an unknown name, or a value of a wrong type or out of range.
    """
    refuse_unknown(values, names_of(settings))
    try:
        return settings(**values)
    except TypeError as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ConfigError(f"{shown}: a value of a wrong type: {error}") from error


def extract_config(values: Mapping[str, Any], family: str) -> ExtractConfig:
    """The settings of extraction out of one flat list of names.

    Args:
        values: by the names of the fields of PyramidConfig, SelectionConfig,
            D2NetConfig and EngineConfig.
        family: of the network; settings of others are refused.

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
                f"those of {FAMILY_OF_SECTION[section]}; leave out"
            )
    return ExtractConfig(
        **{
            section: make_settings(
                kind, {n: values[n] for n in of_section[section] if n in values}
            )
            for section, kind in SECTIONS.items()
        }
    )


def refuse_unknown(values: Collection[str], known: Collection[str]) -> None:
    """Refuse names that are no settings.

    Raises:
        ConfigError: naming the nearest one that is.
    """
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{name}: no such setting; {hint}")
