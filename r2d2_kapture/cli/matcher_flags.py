"""Flags of the matchers: the name, and the settings of each."""

from __future__ import annotations

import dataclasses
from typing import Any

from jsonargparse import Namespace

from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.config.match import (
    MATCHER_SETTINGS,
    MutualNearestConfig,
    plugin_settings,
    settings_of_matcher,
)
from r2d2_kapture.config.settings import MATCHER, make_settings, names_of
from r2d2_kapture.errors import ConfigError


def matcher_flags() -> dict[str, dict[str, str]]:
    """Settings of each matcher -> names of their flags.

    Settings of third-party matchers are prefixed by the matcher's name.
    """
    own = {
        name: {setting: setting for setting in names_of(kind)}
        for name, kind in MATCHER_SETTINGS.items()
    }
    others = {
        name: {setting: f"{name}_{setting}" for setting in names_of(kind)}
        for name, kind in plugin_settings().items()
    }
    return own | others


def add_matcher_name(
    parser: CommandParser, section: str, group: str, topic: str | None
) -> None:
    """Add --matcher to a group of flags, see add_settings."""
    parser.group(group, topic).add_argument(
        f"--{section}{MATCHER}",
        type=str,
        metavar="NAME",
        default=MutualNearestConfig.matcher,
        help=f"how images are matched: {', '.join(matcher_flags())}",
    )


def matcher_from(namespace: Namespace, section: str = "") -> Any:
    """Settings of the chosen matcher from the flags.

    Args:
        namespace: the flags.
        section: prefix of the flags, such as ``match.`` in ``--match.ratio``.

    Raises:
        ConfigError: no such matcher, a value out of range, or a setting of another
            matcher is not at default.
    """
    chosen = namespace[MATCHER]
    kind = settings_of_matcher(chosen)
    flags = matcher_flags()
    for name, other in flags.items():
        changed = [
            f"--{section}{other[field.name].replace('_', '-')}"
            for field in dataclasses.fields(settings_of_matcher(name))
            if name != chosen and namespace[other[field.name]] != field.default
        ]
        if changed:
            raise ConfigError(
                f"{', '.join(changed)}: found for --{section}{MATCHER} {chosen}, "
                f"expected only for {name}; remove it, or choose that matcher"
            )
    values = {setting: namespace[flag] for setting, flag in flags[chosen].items()}
    return make_settings(kind, values)


def flags_of_chosen(namespace: Namespace) -> list[str]:
    """Names of the flags of the chosen matcher's settings."""
    return list(matcher_flags()[namespace[MATCHER]].values())
