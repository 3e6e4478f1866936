"""Sweeps: one command line for every combination of the values of some flags."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from r2d2_kapture.errors import ConfigError

SWITCHES = {"true": "--", "false": "--no-"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One combination of a sweep.

    Attributes:
        values: of each swept key, as typed.
        flags: the same as flags of a command line.
    """

    values: dict[str, str]
    flags: tuple[str, ...]


def expand_sweeps(sweeps: Sequence[str], allowed: Collection[str]) -> list[Variant]:
    """Every combination of the values of ``key=a,b,c``; one variant without sweeps.

    A key is the name of a flag, with - or _; its values true and false switch it.

    Args:
        sweeps: as typed.
        allowed: keys, with _.

    Raises:
        ConfigError: a sweep is malformed, or a key is unknown or a duplicate.
    """
    axes = [_parse(sweep) for sweep in sweeps]
    keys = [key for key, _ in axes]
    for sweep, key in zip(sweeps, keys):
        if key not in allowed:
            raise ConfigError(
                f"--sweep {sweep}: found the key {key}, expected one of "
                f"{', '.join(allowed)}"
            )
    if len(set(keys)) < len(keys):
        raise ConfigError(f"--sweep: found a key twice in {', '.join(keys)}")
    combinations = itertools.product(*(values for _, values in axes))
    return [
        Variant(
            values=dict(zip(keys, values)),
            flags=tuple(_flag(key, value) for key, value in zip(keys, values)),
        )
        for values in combinations
    ]


def _parse(sweep: str) -> tuple[str, list[str]]:
    key, _, listed = sweep.partition("=")
    values = [value.strip() for value in listed.split(",")]
    if not key.strip() or not all(values):
        raise ConfigError(f"--sweep {sweep}: expected key=a,b,c")
    return key.strip().lstrip("-").replace("-", "_"), list(dict.fromkeys(values))


def _flag(key: str, value: str) -> str:
    name = key.replace("_", "-")
    if value.lower() in SWITCHES:
        return SWITCHES[value.lower()] + name
    return f"--{name}={value}"
