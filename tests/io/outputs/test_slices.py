"""Outputs that several runs make together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import Slice, read_slice
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.outputs import slices
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger, write_item
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.pieces import refuse_pieces
from r2d2_kapture.io.outputs.slice_reports import OwnWork
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.types import Failure, Report

WORDS = Contents(what="words", files=("**/*.word", "log.jsonl"), flag="--output")
NAMES = ("a/one", "a/two", "b/three", "four", "b/five", "a/six", "seven")
FORCE = RunOptions(force=True)


def manifest(case: str = "upper", digest: str = "1") -> Manifest:
    return Manifest(
        model={},
        settings={"case": case},
        versions={},
        inputs={"words": ("words.txt", digest)},
    )


def make(
    output: Path,
    text: str = "1/1",
    names: Sequence[str] = NAMES,
    made: Manifest = manifest(),
    options: RunOptions = RunOptions(),
) -> Report:
    """A stage that writes a file and a line of a log for each name."""
    sliced = Sliced.read(text, output, WORDS)
    options = sliced.options(options)
    with sliced.open(made, names, options) as run:
        folder = sliced.root(output)
        with open_ledger(folder, WORDS, made, options, anew=options.force):
            run.gather(output)
            todo = [
                name
                for name in sliced.part.of(names)
                if not (folder / f"{name}.word").exists()
            ]
            for name in todo:
                case = getattr(name, made.settings["case"])
                write_item(folder, folder / f"{name}.word", case().encode())
            with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
                log.writelines(f'{{"name": "{name}"}}\n' for name in todo)
        report = Report(
            stage="words",
            done=len(todo),
            skipped=len(sliced.part.of(names)) - len(todo),
            failed=(),
            seconds=1.0,
            outputs=(output,),
            details={"letters": sum(map(len, todo)), "mean": 0},
        )
        return run.finish(
            report,
            output / "report.json",
            OwnWork(sums=("letters",), averages={"mean": "letters"}, noun="letter"),
        )


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "report.json")
    }


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_slices_are_the_whole_list_in_order(count: int) -> None:
    parts = [Slice(number=i, count=count).of(NAMES) for i in range(1, count + 1)]
    assert tuple(itertools.chain.from_iterable(parts)) == NAMES
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "half", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--slice: found '.*', expected i/n with"):
        read_slice(text, or_all=True)


def test_all_is_refused_where_nothing_is_put_together() -> None:
    with pytest.raises(ConfigError, match="--slice: found 'all'"):
        read_slice("all")


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (3, 1, 4, 2)])
def test_slices_in_any_order_are_one_run(tmp_path: Path, order: Sequence[int]) -> None:
    make(tmp_path / "one")
    for number in order:
        assert make(tmp_path / "cut", f"{number}/4").details["slice"] == f"{number}/4"
        assert make(tmp_path / "cut", f"{number}/4").done == 0
    report = make(tmp_path / "cut", "all")
    assert content(tmp_path / "cut") == content(tmp_path / "one")
    assert (report.done, report.skipped, report.summary) == (7, 0, "37 letters")
    assert report.details["mean"] == 5
    assert report.details["slices"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "one"]


def test_a_run_killed_before_its_report_counts_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "one")
    for number in (1, 2):
        make(tmp_path / "cut", f"{number}/2")

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(slices, "write_report", killed)
        make(tmp_path / "cut", "all")
    with pytest.raises(DatasetError, match="of which none is missing; run the same"):
        make(tmp_path / "cut")
    report = make(tmp_path / "cut", "all")
    assert content(tmp_path / "cut") == content(tmp_path / "one")
    assert (report.done, report.skipped, report.summary) == (7, 0, "37 letters")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "one"]


def test_more_slices_than_items_are_one_run(tmp_path: Path) -> None:
    make(tmp_path / "one")
    for number in range(1, 10):
        make(tmp_path / "cut", f"{number}/9")
    make(tmp_path / "cut", "all")
    assert content(tmp_path / "cut") == content(tmp_path / "one")


def test_all_says_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "cut"
    with pytest.raises(OutputError, match="cut: found no slices of it, expected all"):
        make(output, "all")
    assert not output.exists()
    make(output, "2/4")
    with pytest.raises(
        OutputError, match="found 1 of 4 slices; 1/4, 3/4, 4/4 are missing: run"
    ):
        make(output, "all")
    assert not output.exists()
    make(output, "1/4")
    make(output, "3/4")
    with pytest.raises(OutputError, match="found 3 of 4 slices; 4/4 is missing: run"):
        make(output, "all")


def test_readers_and_whole_runs_meet_no_pieces(tmp_path: Path) -> None:
    output = tmp_path / "cut"
    refuse_pieces(output)
    make(output, "2/2")
    for run in (lambda: refuse_pieces(output), lambda: make(output)):
        with pytest.raises(DatasetError, match="slices of it in .+, of which 1/2 is"):
            run()
    make(output, "1/2")
    with pytest.raises(DatasetError, match="of which none is missing; run the same"):
        refuse_pieces(output)
    make(output, "all")
    refuse_pieces(output)
    assert make(output).skipped == len(NAMES)


def test_one_number_of_slices_until_they_are_put_together(tmp_path: Path) -> None:
    output = tmp_path / "cut"
    make(output, "1/2")
    with pytest.raises(OutputError, match=r"found slice 1/2 of it .+, expected n = 3"):
        make(output, "1/3")
    make(output, "2/2")
    make(output, "all")
    for number in (1, 2, 3):
        make(output, f"{number}/3", [*NAMES, "eight", "nine"])
    make(output, "all", [*NAMES, "eight", "nine"])
    assert (output / "nine.word").read_bytes() == b"NINE"


def test_other_settings_are_refused_slice_by_slice(tmp_path: Path) -> None:
    output, lower = tmp_path / "cut", manifest("lower")
    make(output, "1/2")
    before = content(tmp_path)
    with pytest.raises(OutputError, match="words made with case: upper, not lower"):
        make(output, "2/2", made=lower)
    assert content(tmp_path) == before
    # --force changes its own slice, and says which others have to follow
    make(output, "2/2", made=lower, options=FORCE)
    with pytest.raises(OutputError, match="case: lower, not upper"):
        make(output, "1/2")
    with pytest.raises(OutputError, match="other settings .+; 1/2 is outdated: run"):
        make(output, "all", made=lower)
    make(output, "1/2", made=lower, options=FORCE)
    make(output, "all", made=lower)
    make(tmp_path / "one", made=lower)
    assert content(output) == content(tmp_path / "one")


def test_force_replaces_the_output_of_other_settings_by_slices(tmp_path: Path) -> None:
    output, lower = tmp_path / "cut", manifest("lower")
    make(output)
    with pytest.raises(OutputError, match="case: upper, not lower"):
        make(output, "1/2", made=lower)
    for number in (1, 2):
        make(output, f"{number}/2", made=lower, options=FORCE)
    with pytest.raises(OutputError, match="case: upper, not lower"):
        make(output, "all", made=lower)
    assert make(output, "all", made=lower, options=FORCE).done == len(NAMES)
    assert (output / "a" / "one.word").read_bytes() == b"a/one"


def test_slices_that_found_nothing_to_do_bind_no_later_ones(tmp_path: Path) -> None:
    output, lower = tmp_path / "cut", manifest("lower")
    for number in (1, 2):
        make(output, f"{number}/2")
    make(output, "all")
    sliced = Sliced.read("1/3", output, WORDS)
    with sliced.open(manifest(), NAMES, RunOptions()) as run:
        run.is_empty = True
    make(output, made=lower, options=FORCE)
    names = [*NAMES, "eight"]
    for number in (1, 2):
        make(output, f"{number}/2", names, lower)
        with pytest.raises(OutputError, match="case: lower, not upper"):
            make(output, f"{3 - number}/2", names)
    make(output, "all", names, lower)
    assert (output / "eight.word").read_bytes() == b"eight"


def test_slices_of_other_inputs_are_not_put_together(tmp_path: Path) -> None:
    output, newer = tmp_path / "cut", manifest(digest="2")
    make(output, "1/2")
    make(output, "2/2")
    for names, made in ((NAMES[1:], manifest()), (NAMES, newer)):
        with pytest.raises(OutputError, match="1/2, 2/2 are outdated: run the same"):
            make(output, "all", names, made)
    make(output, "2/2", made=newer)
    with pytest.raises(OutputError, match="1/2 is outdated"):
        make(output, "all", made=newer)


def test_a_slice_is_made_by_one_run_at_a_time(tmp_path: Path) -> None:
    output = tmp_path / "cut"
    make(output, "1/2")
    make(output, "2/2")
    with exclusive(tmp_path / ".cut.slices" / "2-of-2"):
        for text in ("2/2", "all"):
            with pytest.raises(OutputError, match=r"cut \(slice 2/2\): another run is"):
                make(output, text)
        assert make(output, "1/2").skipped == 3
    make(output, "all")
    with exclusive(output):
        with pytest.raises(OutputError, match="cut: another run is writing to it"):
            make(output, "1/2", [*NAMES, "eight"])


def test_a_strict_slice_that_failed_is_missing(tmp_path: Path) -> None:
    sliced = Sliced.read("1/2", tmp_path / "cut", WORDS)
    with sliced.open(manifest(), NAMES, RunOptions(strict=True)) as run:
        report = make(tmp_path / "other")
        failure = Failure(name="one", reason="it is broken")
        failed = dataclasses.replace(report, failed=(failure,))
        run.finish(failed, tmp_path / "report.json")
    make(tmp_path / "cut", "2/2")
    with pytest.raises(OutputError, match="1/2 is missing"):
        make(tmp_path / "cut", "all")
