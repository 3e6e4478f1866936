"""Flags given more than once: values are joined if a flag takes several."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Sequence

from r2d2_kapture.errors import ConfigError

SEVERAL = ("+", "*")
CONFIG = "config"
NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")


def join_repeated_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> list[str]:
    """Join the values of flags that are given several times.

    argparse keeps the last values only. Of a flag with one value the last one counts,
    with a warning, so that scripts can override flags. Two existing files or folders
    are refused: both may be meant. All ``--config`` files are read, in order.

    Args:
        parser: that knows the flags.
        arguments: of the command line.

    Returns:
        Each flag once, then ``--`` and arguments without a flag.

    Raises:
        ConfigError: a flag of one file or folder has two.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    flags, others = _grouped(parser, arguments[:end])
    joined: list[list[str]] = []
    first_of: dict[argparse.Action, list[str]] = {}
    for action, group in flags:
        if action is None or action.dest == CONFIG:
            joined.append(group)
            continue
        first = first_of.setdefault(action, group)
        if first is group:
            joined.append(group)
        elif action.nargs in SEVERAL:
            first += group[1:]
        elif first != group:
            both = f"found both {' '.join(first)} and {' '.join(group)}"
            if os.path.exists(first[-1]) and os.path.exists(group[-1]):
                raise ConfigError(f"{both}, expected one of them")
            logging.warning("%s; the last one counts", both)
            first[:] = group
    others += arguments[end + 1 :]
    separator = ["--"] if others and parser._get_positional_actions() else []
    return [*(text for group in joined for text in group), *separator, *others]


def unknown_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> list[str]:
    """Names of flags that the parser does not know."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    flags, _ = _grouped(parser, arguments[:end])
    return [group[0].partition("=")[0] for action, group in flags if action is None]


def take_flag(arguments: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """The values of a flag, in order, and the arguments without it."""
    values, others = [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != flag:
            others.append(argument)
        elif equals:
            values.append(value)
        elif (following := next(rest, None)) is not None:
            values.append(following)
        else:  # the parser refuses it
            others.append(argument)
    return values, others


def replace_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str], flags: Sequence[str]
) -> list[str]:
    """Arguments in which some flags replace earlier ones of the same settings."""
    new, _ = _grouped(parser, flags)
    old, others = _grouped(parser, arguments)
    replaced = {action for action, _ in new}
    kept = [group for action, group in old if action not in replaced]
    return [*(text for group in kept for text in group), *others, *flags]


def _grouped(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[list[tuple[argparse.Action | None, list[str]]], list[str]]:
    """Each flag, known or not, with its values, and arguments without a flag."""
    flags: list[tuple[argparse.Action | None, list[str]]] = []
    others: list[str] = []
    room = 0.0
    for argument in arguments:
        name, equals, value = argument.partition("=")
        action = parser._option_string_actions.get(name)
        if action is not None:
            # a value that starts with - needs =
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
    """Greatest number of values after a flag."""
    if action.nargs in SEVERAL:
        return float("inf")
    return action.nargs if isinstance(action.nargs, int) else 1


def _is_value(argument: str) -> bool:
    """Whether argparse takes it for a value instead of a flag."""
    return (
        not argument.startswith("-")
        or " " in argument
        or NEGATIVE_NUMBER.match(argument) is not None
    )
