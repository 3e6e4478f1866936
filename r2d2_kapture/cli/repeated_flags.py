"""Flags given more than once: values add up where a flag takes several."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from jsonargparse import ActionConfigFile

from r2d2_kapture.errors import ConfigError

SEVERAL = ("+", "*")
NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")


def join_repeated_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> list[str]:
    """Add up the values of flags that are given several times.

    argparse keeps the last values only. What takes one value is refused where it is
    given two, as COLMAP's commands do; ``--config`` files are all read, in order.

    Args:
        parser: that knows the flags.
        arguments: of the command line.

    Returns:
        Each flag once, then ``--`` and what stands by itself.

    Raises:
        ConfigError: a flag of one value with different ones, or a switch with its
            opposite.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    flags, others = _grouped(parser, arguments[:end])
    joined: list[list[str]] = []
    first_of: dict[argparse.Action, list[str]] = {}
    for action, group in flags:
        if action is None or isinstance(action, ActionConfigFile):
            joined.append(group)
            continue
        first = first_of.setdefault(action, group)
        if first is group:
            joined.append(group)
        elif action.nargs in SEVERAL:
            first += group[1:]
        elif first != group:
            raise ConfigError(
                f"found both {' '.join(first)} and {' '.join(group)}, expected one of "
                "them"
            )
    others += arguments[end + 1 :]
    separator = ["--"] if others and parser._get_positional_actions() else []
    return [*(text for group in joined for text in group), *separator, *others]


def _grouped(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[list[tuple[argparse.Action | None, list[str]]], list[str]]:
    """Each flag, known or not, with its values, and what belongs to none."""
    flags: list[tuple[argparse.Action | None, list[str]]] = []
    others: list[str] = []
    room = 0.0
    for argument in arguments:
        name, equals, value = argument.partition("=")
        action = parser._option_string_actions.get(name)
        if action is not None:
            # a single value that begins with - is one by its = only
            split = action.nargs in SEVERAL or (action.nargs != 0 and _is_value(value))
            flags.append((action, [name, value] if equals and split else [argument]))
            room = 0 if equals else _room(action)
        elif room and _is_value(argument):
            flags[-1][1].append(argument)
            room -= 1
        else:
            if _is_value(argument):
                others.append(argument)
            else:
                flags.append((None, [argument]))
            room = 0
    return flags, others


def _room(action: argparse.Action) -> float:
    """How many values may follow a flag."""
    if action.nargs in SEVERAL:
        return float("inf")
    return action.nargs if isinstance(action.nargs, int) else 1


def _is_value(argument: str) -> bool:
    """Whether argparse takes it for a value, not for a flag."""
    return (
        not argument.startswith("-")
        or " " in argument
        or NEGATIVE_NUMBER.match(argument) is not None
    )
