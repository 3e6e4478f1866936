"""The parser of every command: flags in groups, help of one screen, one-line errors.

Flags belong to titled groups (``parser.group("inputs")``), and metavars state their
values: DIR, FILE, N, X, PX, DEG, NAME or {a,b}. Files and folders of the group "inputs"
must exist. A group with a topic, a family of networks or a stage, is shown by ``--help
TOPIC`` only.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union, get_args, get_origin

from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter, Namespace

import r2d2_kapture
from r2d2_kapture.cli.repeated_flags import (
    join_repeated_flags,
    take_flag,
    unknown_flags,
)
from r2d2_kapture.config.checks import did_you_mean, nearest
from r2d2_kapture.config.extract import EXTRACTORS
from r2d2_kapture.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse._core import ArgumentGroup

EXIT_BAD_INPUT = 2
INPUTS = "inputs"
OUTPUTS = "outputs"
D2NET = ("d2net", ".pth")
"""Parts of arguments, or endings of them, that select D2-Net instead of R2D2."""
R2D2 = "r2d2"
ALL = "all"
MORE = "more flags"
USAGE_WIDTH = 70
LONGEST = 75
"""Greatest length of choices listed by a help."""
WORDS = {
    "N": "a whole number",
    "X": "a number",
    "PX": "a number of pixels",
    "DEG": "a number of degrees",
    "DIR": "a folder",
    "FILE": "a file",
    "PATH": "a file or folder",
    "NAME": "a name",
    "MODEL": "a model",
    "PATTERN": "a pattern",
}
FILES = re.compile(r"(?:file|list)s?|database")
FOLDERS = re.compile(r"(?:folder|dataset)s?")
COMMAND_NAME = re.compile(r"kapture_r2d2_[a-z_]+")
GENERAL = {
    "help": "show this help and exit",
    "version": "show the version and exit",
    "print_config": SUPPRESS,
}
"""Help texts of the flags that Python's parsers add."""


class CommandHelp(DefaultHelpFormatter):
    """Help that states defaults as typed, without Python types."""

    def _get_help_string(self, action: Action) -> str:
        note = _default_text(action)
        text = re.sub(r"(?<!\.)\.$", "", action.help or "")
        return f"{text} ({note})" if note else text


class CommandParser(ArgumentParser):
    """A parser that joins repeated flags and reports errors in one line.

    See join_repeated_flags.
    """

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=command,
            description=description,
            epilog=f"example: {example}",
            version=r2d2_kapture.__version__,
            formatter_class=CommandHelp,
            allow_abbrev=False,
        )
        self._titled: dict[str, ArgumentGroup] = {}
        self._topic_of: dict[str, str] = {}
        self._short: dict[str, str] = {}
        self._optionals.title = "general"
        for title in (INPUTS, OUTPUTS, "features"):
            self.group(title)

    def group(self, title: str, topic: str | None = None) -> ArgumentGroup:
        """The group of flags with a title, created if necessary.

        Args:
            title: as the help prints it.
            topic: of ``--help TOPIC``, which shows these flags; None stands for every
                help, and r2d2 for every one without d2net.
        """
        if title not in self._titled:
            self._titled[title] = self.add_argument_group(title)
            if topic is not None:
                self._topic_of[title] = topic
        return self._titled[title]

    def shorten(self, flag: str, to: str) -> None:
        """Show and take a flag of a section by the name of the section alone.

        A parser of settings in sections cannot have a flag of that name.

        Args:
            flag: as ``--refine.use``, which stays valid.
            to: as ``--refine``.
        """
        self._short[flag] = to
        # not among the action's own, by which jsonargparse finds sections
        self._option_string_actions[to] = self._option_string_actions[flag]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report an error in one line, without the usage."""
        text = self._in_words(" ".join(message.split()).rstrip("."))
        if not self.exit_on_error:
            super().error(text, ex)
        end = " " if text.endswith("?") else "; "
        self.exit(EXIT_BAD_INPUT, f"error: {text}{end}see {self.prog} --help\n")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *others: Any, **named: Any
    ) -> Namespace:
        given = self._spelled(sys.argv[1:] if args is None else args)
        if "-h" in given or "--help" in given:
            self._show_help(given)
        for name in unknown_flags(self, given):
            self.error(f"unrecognized argument {name}{self._near_flag(name)}")
        joined = join_repeated_flags(self, given)
        parsed = super().parse_args(joined, *others, **named)
        self._require_inputs(parsed)
        return parsed

    def _near_flag(self, name: str) -> str:
        """The end of a message: the nearest flag, also without its section."""
        flags = list(self._option_string_actions)
        named = {f"--{f.rpartition('.')[2]}": f for f in reversed(flags) if "." in f}
        named |= {flag: flag for flag in flags}
        near = nearest(name, named)
        return f"; did you mean {named[near]}?" if near else ""

    def _spelled(self, given: Sequence[str]) -> list[str]:
        """Arguments with the proper names of flags, such as ``--top-k`` for
        ``--top_k``."""
        flags = {flag.replace("_", "-"): flag for flag in self._option_string_actions}
        split = [text.partition("=") for text in given]
        return [flags.get(n.replace("_", "-"), n) + e + v for n, e, v in split]

    def _show_help(self, given: Sequence[str]) -> NoReturn:
        """Print the help, with the flags of a topic or of all, and stop."""
        name, ending = D2NET
        named = any(name in text or text.endswith(ending) for text in given)
        shown = {*given, name} if named else {*given}
        if shown.isdisjoint(EXTRACTORS.places):
            shown.add(R2D2)
        hidden = {
            title: topic
            for title, topic in self._topic_of.items()
            if topic not in shown and ALL not in given
        }
        if hidden:
            helps = [f"--help {topic}" for topic in dict.fromkeys(hidden.values())]
            texts = f"shown by {', '.join(helps)} or --help {ALL}"
            self.group(MORE).description = texts
            self.group(MORE).add_argument("--more", help=SUPPRESS)
        for flag, short in self._short.items():
            self._option_string_actions[flag].option_strings = [short]
        for action in self._actions:
            action.help = GENERAL.get(action.dest, action.help)
        required = [
            _named(action)
            for action in self._actions
            if action.required and action.nargs != "*"
        ]
        usage = " ".join([self.prog, *required, "[options]"])
        self.usage = textwrap.fill(usage, USAGE_WIDTH, subsequent_indent=" " * 7)
        last = [self.group("run"), self.group(MORE), self._optionals]
        left_out = [*last, *map(self.group, hidden)]
        first = [group for group in self._action_groups if group not in left_out]
        self._action_groups = [*first, *last]  # type: ignore[list-item]
        self.print_help()
        self.exit()

    def _require_inputs(self, parsed: Namespace) -> None:
        """Refuse a missing file or folder before anything is loaded.

        The message names the command that creates it, from the help.

        Raises:
            ConfigError: one is missing.
            DatasetError: there are slices of it alone.
        """
        from r2d2_kapture.io.outputs.pieces import refuse_pieces

        for action in self.group(INPUTS)._group_actions:
            value = parsed.get(action.dest)
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path) and not os.path.exists(path):
                    refuse_pieces(path)
                    text = action.help or ""
                    expected = text.partition(";")[0].removesuffix(".")
                    maker = COMMAND_NAME.search(text)
                    hint = f"; run {maker[0]} first" if maker else ""
                    raise ConfigError(
                        f"{action.option_strings[0]} {path}: found no such file or "
                        f"folder, expected {expected}{hint}"
                    )

    def _in_words(self, message: str) -> str:
        """Messages of jsonargparse, with the names that a user typed."""
        value_of = r'Parser key "([^"]+)": (.*)(?:Got|Given) value: (.*)'
        if found := re.fullmatch(value_of, message):
            return self._wrong_value(*found.groups())
        if found := re.fullmatch(r"Option '(.+)' is not accepted", message):
            known = [action.dest for action in self._actions]
            near = did_you_mean(found[1], known)
            return f"{self._sources()}: {found[1]}: no such setting{near}"
        if found := re.fullmatch(r"Problems parsing config: (.*)", message):
            return f"{self._sources()}: cannot be read as YAML: {found[1]}"
        if message.startswith(("Unexpected config", "Key must be a string")):
            return f"{self._sources()}: expected 'name: value' on each line"
        if found := re.fullmatch("the following arguments are required: (.*)", message):
            actions = [self._action(key) for key in found[1].split(", ")]
            return "missing " + ", ".join(map(_named, actions))
        if found := re.fullmatch("argument (--[^/]+): expected .*argument", message):
            action = self._option_string_actions[found[1]]
            expected = _listed(_words(action))
            return f"{self._shown(found[1])}: found no value, expected {expected}"
        if found := re.fullmatch("unrecognized arguments: (.*)", message):
            return f"found {found[1]} without a flag, expected flags only"
        return message

    def _wrong_value(self, key: str, said: str, value: str) -> str:
        action = self._action(key)
        words = _words(action)
        if words == ["NAME"]:
            # each value occurs several times, next to the names of types
            said_words = dict.fromkeys(re.findall("'([^']+)'", said))
            words = [w for w in said_words if w not in ("str", "NoneType")] or words
        near = did_you_mean(value, [word for word in words if word not in WORDS])
        typed = {text.partition("=")[0] for text in self.args or ()}
        place = (
            f"{self._shown(action.option_strings[0])} {value}"
            if typed.intersection(map(self._shown, action.option_strings))
            or typed.intersection(action.option_strings)
            else f"{self._sources()}: {key}: {value}"
        )
        return f"{place}: expected {_listed(words)}{near}"

    def _shown(self, flag: str) -> str:
        """A flag as users know it."""
        return self._short.get(flag, flag)

    def _action(self, dest: str) -> Action:
        return next(action for action in self._actions if action.dest == dest)

    def _sources(self) -> str:
        """The given files of settings."""
        given = self.args or ()
        files, _ = take_flag(given, "--config")
        presets, _ = take_flag(given, "--preset")
        return ", ".join([f for f in files if not f.startswith("{")] + presets)


def value_name(kind: Any, text: str = "") -> str:
    """The metavar of a flag.

    Args:
        kind: the type of its value.
        text: its help, which states the unit: "in pixels", "in degrees", "file".
    """
    if get_origin(kind) in (Union, UnionType):
        kinds = [k for k in get_args(kind) if k is not NoneType]
        if set(kinds) == {float, str}:
            return "TIME"  # with or without a unit
        names = [value_name(k, text) for k in kinds]
        listed = ",".join(name.strip("{}") for name in names)
        return names[0] if len(names) == 1 else f"{{{listed}}}"
    if get_origin(kind) is Literal:
        listed = ",".join(map(str, get_args(kind)))
        return f"{{{listed}}}" if len(listed) < LONGEST else "NAME"
    if kind is bool:
        return "{true,false}"
    if kind is Path:
        return _path_name(re.findall(r"[a-z]+", text.partition(";")[0]))
    if kind in (int, float):
        for unit, name in (("in pixels", "PX"), ("in degrees", "DEG")):
            if unit in text:
                return name
        return "N" if kind is int else "X"
    starts = {"i/n": "I/N", "WIDTHxHEIGHT": "SIZE", "patterns": "PATTERN"}
    return next((starts[word] for word in starts if text.startswith(word)), "TEXT")


def _path_name(words: Sequence[str]) -> str:
    """FILE, or PATH where a folder may replace it, if the words name a file first."""
    kinds = [word for word in words if FILES.fullmatch(word) or FOLDERS.fullmatch(word)]
    if not kinds or FOLDERS.fullmatch(kinds[0]):
        return "DIR"
    either = "or" in words and any(map(FOLDERS.fullmatch, kinds))
    return "PATH" if either else "FILE"


def _named(action: Action) -> str:
    """A flag with its metavar."""
    return " ".join([*action.option_strings[:1], str(action.metavar)])


def _words(action: Action) -> list[str]:
    """Words for the value of a flag."""
    if isinstance(action.metavar, tuple):
        return [" ".join(action.metavar)]
    return str(action.metavar).strip("{}").split(",")


def _listed(words: Sequence[str]) -> str:
    """Words for the value of a flag, as text."""
    *others, last = [WORDS.get(word, word) for word in words]
    return f"{', '.join(others)} or {last}" if others else last


def _default_text(action: Action) -> str:
    """The note on the default of a flag."""
    default = action.default
    if action.required and action.option_strings:
        return "required"
    if isinstance(action, ActionYesNo) or default is True:
        return f"default: {'on' if default else 'off'}"
    if default is None or default is False or default in (SUPPRESS, "", [], (), {}):
        return ""
    return f"default: {_typed(default)}"


def _typed(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, list | tuple):
        inner = [
            ",".join(map(_typed, item)) if isinstance(item, tuple) else _typed(item)
            for item in value
        ]
        return " ".join(inner)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
