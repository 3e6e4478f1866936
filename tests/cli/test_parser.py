"""What every command says of itself, and of flags that it cannot take."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from r2d2_kapture.cli.colmap import main as colmap
from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.cli.pipeline import main as pipeline
from r2d2_kapture.cli.verify import main as verify
from r2d2_kapture.config.extract import EXTRACTORS
from tests.commands import command_modules

COMMANDS = command_modules()
SHOWN = {
    "evaluate": "--ground-truth",
    "match": "--features --pairs --output --ratio --cache-gb",
    "pairs": "--mapping --query --method --top-k --merge --slice covisibility",
    "train_view": "--strong-tilt",
}
"""Some of what a help must say."""
METAVAR = re.compile(r"[A-Z][A-Z0-9_=,/-]*|\{[^}|\[ ]+\}")


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def help_of(name: str, capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    module = importlib.import_module(COMMANDS[name])
    with pytest.raises(SystemExit, match="0"):
        module.main([*typed, "--help"])
    return capsys.readouterr().out


def error_of(command: object, typed: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refused command line."""
    try:
        code = command(typed.split())  # type: ignore[operator]
    except SystemExit as end:
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_is_for_people(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(name, capsys, "all")
    for word in (
        "<class",
        "Literal",
        "Union",
        "Optional",
        "None",
        " | ",
        "null",
        "type:",
    ):
        assert word not in text, word
    assert text.startswith(f"usage: kapture_r2d2_{name} ")
    assert f"\n\nexample: kapture_r2d2_{name} " in text
    assert set(SHOWN.get(name, "").split()) <= set(re.split(r"[\s,{}]+", text))
    assert ("--learning-rate" in text) == (name == "train")
    assert max(map(len, text.splitlines())) < 95
    flags = re.findall(r"^  (--[^ ]+) (\S.*?)(?:  |$)", text, re.MULTILINE)
    assert flags
    for flag, takes in flags:
        if not takes.startswith("--"):
            assert METAVAR.fullmatch(takes.split()[0].strip("[]")), (flag, takes)
    *groups, last = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert last == "general" and len(groups) > 1
    assert len({*groups}) == len(groups)


def test_flags_of_a_family_are_shown_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = help_of("extract", capsys)
    assert "--top-k" in plain and "--max-edge" not in plain
    hidden = ", ".join(f"--help {name}" for name in EXTRACTORS.places if name != "r2d2")
    assert f"shown by {hidden}, --help ray or --help all" in " ".join(plain.split())
    assert "--executor {process,ray}" in plain and "--ray-workers" not in plain
    assert "--ray-workers" in help_of("extract", capsys, "ray")
    for typed in (["d2net"], ["--extractor", "d2net"], ["--model", "d2_tf.pth"]):
        text = help_of("extract", capsys, *typed)
        assert "--max-edge" in text and "--scale-f" not in text
    for typed in (["sift"], ["--extractor", "sift"]):
        text = help_of("extract", capsys, *typed)
        assert "--sift-root" in text
        assert not any(flag in text for flag in ("--scale-f", "--max-edge", "--disk-"))
    everything = help_of("extract", capsys, "all")
    assert "--max-edge" in everything and "--scale-f" in everything
    assert "--match.ratio" not in help_of("pipeline", capsys)
    assert "--match.ratio" in help_of("pipeline", capsys, "match")


@pytest.mark.parametrize(
    ("command", "typed", "message"),
    [
        (
            extract,
            "--topk 5",
            "unrecognized argument --topk; did you mean --top-k? see",
        ),
        (extract, "--top 5", "unrecognized argument --top; did you mean --top-k? see"),
        (extract, "--xyzzy", "unrecognized argument --xyzzy; see kapture_r2d2_extract"),
        (extract, "a.jpg", "found a.jpg without a flag, expected flags only; see"),
        (extract, "--top-k many", "--top-k many: expected a whole number; see"),
        (extract, "--scale-f x", "--scale-f x: expected a number; see"),
        (
            extract,
            "--tile-pixels x",
            "--tile-pixels x: expected a whole number or auto",
        ),
        (extract, "--gpu", "--gpu: found no value, expected a whole number; see"),
        (extract, "--exclude", "--exclude: found no value, expected a pattern; see"),
        (
            extract,
            "--precision fp33",
            "--precision fp33: expected auto, fp32, bf16, fp16 or int8; did you mean f",
        ),
        (extract, "--extractor sitf", "aliked, disk; did you mean sift?"),
        (extract, "--preset fats", "paper, turbo; did you mean fast?"),
        (extract, "--kapture-root . --model fast_r2d2", "did you mean fast_r2d2_v"),
        (
            extract,
            "--config key.yaml",
            "key.yaml: top_kk: no such setting; did you mean",
        ),
        (
            extract,
            "--config value.yaml",
            "value.yaml: top_k: x: expected a whole number",
        ),
        (extract, "--config list.yaml", "list.yaml: expected 'name: value' on each"),
        (extract, "--config number.yaml", "number.yaml: expected 'name: value' on"),
        (extract, "--config broken.yaml", "broken.yaml: cannot be read as YAML: "),
        (
            extract,
            "--kapture-root no",
            "--kapture-root no: found no such file or folder",
        ),
        (pipeline, "--mapping . --topk 3", "did you mean --extract.top-k?"),
        (
            pipeline,
            "--mapping . --config key.yaml",
            "key.yaml: top_kk: no such setting",
        ),
        (colmap, "--match.ration 1", "did you mean --match.ratio?"),
        (
            verify,
            "--mapping .",
            "missing --features DIR, --matches DIR, --database FILE",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(
    command: object,
    typed: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key.yaml").write_text("top_kk: 3\n")
    Path("value.yaml").write_text("top_k: x\n")
    Path("list.yaml").write_text("- a\n")
    Path("number.yaml").write_text("1: 2\n")
    Path("broken.yaml").write_text("a: [\n")
    assert message in error_of(command, typed, capsys)


def test_names_with_underscores_are_the_same_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "--top-k: found -1" in error_of(
        extract, "--kapture_root . --top_k=-1", capsys
    )
