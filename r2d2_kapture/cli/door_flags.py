"""Flags of matchers and extractors: the name of one, and the settings of each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Any

from jsonargparse import Namespace

from r2d2_kapture.config.plugins import Door
from r2d2_kapture.config.presets import EXTRACTION, read_preset
from r2d2_kapture.config.settings import make_settings, names_of, not_of
from r2d2_kapture.errors import ConfigError


def chosen_settings(
    namespace: Namespace,
    door: Door,
    section: str = "",
    chosen: str | None = None,
    described: str = "",
    others: Collection[str] = (),
    preset: str | None = None,
) -> Any:
    """Settings of the chosen matcher or extractor from the flags.

    Args:
        namespace: the flags.
        door: what is chosen.
        section: prefix of the flags, such as ``match.`` in ``--match.ratio``.
        chosen: its name; None takes the flag's.
        described: it, for errors; by default the flag.
        others: names of those whose settings may be given too.
        preset: of extraction, if settings come from one.

    Raises:
        ConfigError: no such name, a value out of range, or a setting of another one is
            not at default.
    """
    chosen = namespace[door.kind] if chosen is None else chosen
    made = typed_settings(namespace, door, chosen, section)
    described = described or f"--{section}{door.kind} {chosen}"
    for name in door.settings():
        changed = changed_flags(namespace, door, name, section)
        if changed and name != chosen and name not in others:
            if preset is not None:
                _refuse_preset(preset, door, name, described)
            raise ConfigError(not_of(door, changed, described, name))
    return made


def _refuse_preset(preset: str, door: Door, owner: str, described: str) -> None:
    """Refuse a preset with settings of another one than that described.

    Raises:
        ConfigError: naming what was typed, rather than what it stands for.
    """
    given = read_preset(preset, EXTRACTION, "--preset")
    own = [name for name in door.flags(owner) if name in given]
    if own:
        raise ConfigError(
            f"--preset {preset}: is for {owner} ({', '.join(own)}); leave it out with "
            f"{described}"
        )


def typed_settings(
    namespace: Namespace, door: Door, name: str, section: str = ""
) -> Any:
    """Settings of a matcher or extractor from its flags, see chosen_settings.

    Raises:
        ConfigError: no such name, or a value out of range.
    """
    kind, flags = door.settings_of(name), door.flags(name)
    values = [namespace[flag] for flag in flags]
    try:
        return make_settings(kind, dict(zip(names_of(kind), values)))
    except ConfigError as error:
        # settings know nothing of what their flags begin with
        own = "|".join(name.replace("_", "-") for name in names_of(kind))
        front = f"--{section}{door.prefix(name).replace('_', '-')}"
        named = re.sub(rf"(?<![\w-])--(?=(?:{own})(?![\w-]))", front, str(error))
        raise ConfigError(named) from error


def changed_flags(
    namespace: Namespace, door: Door, name: str, section: str = ""
) -> list[str]:
    """The flags of the settings of one that are not at default."""
    prefix = door.prefix(name)
    return [
        _flag(section, prefix + field.name, namespace[prefix + field.name])
        for field in dataclasses.fields(door.settings_of(name))
        if namespace[prefix + field.name] != field.default
    ]


def _flag(section: str, name: str, value: object) -> str:
    """The flag of a setting; a switch is turned off by ``--no-NAME``."""
    return f"--{section}{'no-' * (value is False)}{name.replace('_', '-')}"
