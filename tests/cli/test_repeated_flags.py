"""Flags given twice, in every command: several values add up, others are refused."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import pytest

from r2d2_kapture.cli import common
from r2d2_kapture.cli import parser as parsers
from r2d2_kapture.cli import repeated_flags
from r2d2_kapture.cli.common import make_parser
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.repeated_flags import join_repeated_flags
from r2d2_kapture.config.extract import SelectionConfig
from r2d2_kapture.errors import ConfigError
from tests.commands import command_modules

ROOT = Path(__file__).parents[2]


class Captured(BaseException):
    """Carries the parser of a command."""


def all_modules() -> list[str]:
    recipes = (ROOT / "pipelines").glob("[!_]*.py")
    return [*command_modules().values(), *(f"pipelines.{p.stem}" for p in recipes)]


def parser_of(module: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of a command, caught where its arguments are joined."""

    def capture(parser: argparse.ArgumentParser, arguments: object) -> list[str]:
        raise Captured(parser)

    monkeypatch.syspath_prepend(str(ROOT))
    command = importlib.import_module(module)
    for place in (command, parsers):
        if hasattr(place, "join_repeated_flags"):
            monkeypatch.setattr(place, "join_repeated_flags", capture)
    with pytest.raises(Captured) as caught:
        command.main([])
    parser = caught.value.args[0]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


@pytest.mark.parametrize("module", all_modules())
def test_every_flag_of_every_command(
    module: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parser = parser_of(module, monkeypatch)
    for flag, action in parser._option_string_actions.items():
        assert type(action).__name__ not in ("_ExtendAction", "_AppendAction"), flag
        assert action.nargs in (None, 0, 1, 2, *repeated_flags.SEVERAL), flag
        one, two = [flag, "a"], [f"{flag}=b"]
        if action.nargs in repeated_flags.SEVERAL:
            assert join_repeated_flags(parser, one + two) == [flag, "a", "b"]
            assert join_repeated_flags(parser, one + ["b", *two]) == [*one, "b", "b"]
        elif action.dest == repeated_flags.CONFIG:
            assert join_repeated_flags(parser, one + two) == [*one, flag, "b"]
        elif action.nargs == 0:
            assert join_repeated_flags(parser, [flag, flag]) == [flag]
        else:
            assert join_repeated_flags(parser, one + two) == [flag, "b"]
            assert f"both {flag} a and {flag} b; the last" in caplog.messages[-1]
            with pytest.raises(ConfigError, match=f"both {flag} .* and {flag} .*, exp"):
                join_repeated_flags(parser, [flag, str(ROOT), flag, __file__])


@pytest.fixture
def parser() -> CommandParser:
    parser = make_parser("command", "", "")
    assert isinstance(parser, CommandParser)
    parser.add_argument("images", nargs="*", type=str)
    parser.add_argument("--features", nargs="+", type=str, default=["by default"])
    parser.add_argument("--gpu", type=int)
    parser.add_argument("--output", type=Path | None)
    common.add_settings(parser, SelectionConfig)
    return parser


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("--features a --gpu 1 --features b c", ["a", "b", "c"]),
        ("--features=a --features=b", ["a", "b"]),
        ("--features a b", ["a", "b"]),
        ("", ["by default"]),
    ],
)
def test_values_add_up(parser: CommandParser, typed: str, found: list[str]) -> None:
    assert parser.parse_args(typed.split()).features == found


def test_flags_win_over_the_file_and_add_up(
    parser: CommandParser, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("features: [from file]\ngpu: 1")
    config = ["--config", str(tmp_path / "a.yaml")]
    assert parser.parse_args(config).features == ["from file"]
    both = parser.parse_args([*config, "--features", "a", "--features", "b"])
    assert (both.features, both.gpu) == (["a", "b"], 1)


@pytest.mark.parametrize(
    "typed",
    [
        "x.jpg y.jpg --features a --gpu -1",
        "--features=a x.jpg y.jpg --gpu=-1",
        "x.jpg --features a --gpu -1 y.jpg",
        "--features a --gpu -1 -- x.jpg y.jpg",
    ],
)
def test_what_stands_by_itself_stays_so(parser: CommandParser, typed: str) -> None:
    found = parser.parse_args(typed.split())
    assert found.images == ["x.jpg", "y.jpg"]
    assert (found.features, found.gpu) == (["a"], -1)


def test_two_files_are_one_error(
    capsys: pytest.CaptureFixture[str],
    parser: CommandParser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).touch()

    def command(arguments: list[str]) -> int:
        parser.parse_args(arguments)
        return 0

    typed = "--output a --gpu 0 --output=b".split()
    assert common.run_command(command, typed) == common.EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert (
        error == "error: found both --output a and --output b, expected one of them\n"
    )


def test_of_settings_the_last_one_counts_with_a_warning(
    parser: CommandParser, caplog: pytest.LogCaptureFixture
) -> None:
    typed = "--gpu 0 --subpixel --top-k=5 --gpu -1 --no-subpixel --top-k 6 --top-k 6"
    found = parser.parse_args(typed.split())
    assert (found.gpu, found.subpixel, found.top_k) == (-1, False, 6)
    assert [text.partition(" and ")[0] for text in caplog.messages] == [
        "found both --gpu 0",
        "found both --subpixel",
        "found both --top-k 5",
    ]


@pytest.mark.parametrize(
    "typed",
    ["--nonsense a", "--features", "--features -x", "--features=-x --features=a"],
)
def test_what_argparse_refuses_stays_refused(
    parser: Any, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(typed.split())
