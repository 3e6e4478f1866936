"""Lines of progress say how far a run is, and only where nobody sees a bar."""

from __future__ import annotations

import io

import pytest

from r2d2_kapture.io.progress import BYTES, Progress, minutes


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def after(seconds: float, made: int, progress: Progress, clock: Clock) -> str:
    progress.update(made)
    clock.now += seconds
    return progress.line()


def test_a_line_says_what_is_done_and_what_is_left() -> None:
    clock = Clock()
    progress = Progress("extract", "photograph", 400, clock=clock, shown=None)
    assert progress.line() == "extract: 0 of 400 photographs, 0:00"
    assert after(35, 120, progress, clock) == (
        "extract: 120 of 400 photographs, 0:35, about 1:22 left"
    )
    assert after(65, 280, progress, clock) == "extract: 400 of 400 photographs, 1:40"
    # COLMAP may register an image twice
    assert after(0, 3, progress, clock) == "extract: 400 of 400 photographs, 1:40"


def test_what_cannot_be_counted_has_a_time_and_earlier_work_none() -> None:
    clock = Clock()
    progress = Progress("map, global", "", None, clock=clock)
    assert after(70, 0, progress, clock) == "map, global: 1:10"
    progress = Progress("localize", "query", 100, done=90, clock=clock)
    assert after(10, 5, progress, clock) == (
        "localize: 95 of 100 queries, 0:10, about 0:10 left"
    )
    known = Progress("v.zip", BYTES, 20_000_000, clock=clock)
    assert after(2, 5_000_000, known, clock) == (
        "v.zip: 5.0 of 20.0 MB, 0:02, about 0:06 left"
    )
    unknown = Progress("v.zip", BYTES, None, clock=clock)
    assert after(2, 5_000_000, unknown, clock) == "v.zip: 5.0 MB, 0:02"


def test_nothing_is_foretold_of_steps_of_different_length() -> None:
    clock = Clock()
    progress = Progress("map", "photograph", 8, steady=False, clock=clock)
    assert after(60, 1, progress, clock) == "map: 1 of 8 photographs, 1:00"
    stream = Terminal()
    with Progress("map", "photograph", 8, steady=False, stream=stream) as bar:
        bar.update()
    assert "1/8 [00:00]" in stream.getvalue() and "<" not in stream.getvalue()


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_minutes(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_the_first_line_comes_early_then_one_every_ten_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress("match", "pair", 9, clock=clock, stream=stream)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        clock.now += seconds
        progress.update()
        return len(waited) == 4

    progress.write_lines(wait)
    assert waited[0] < 5 and waited[1:] == [10, 10, 10]
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3 and lines[1].startswith("match: 2 of 9 pairs, 0:14, about ")


@pytest.mark.parametrize(
    "shown, stream, bar, lines",
    [
        (None, Terminal(), True, False),
        (None, io.StringIO(), False, True),
        (False, Terminal(), False, False),
        (False, io.StringIO(), False, False),
        (True, io.StringIO(), True, False),
    ],
)
def test_bars_are_for_terminals(
    shown: bool | None,
    stream: io.StringIO,
    bar: bool,
    lines: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress("x", "pair", 3, shown=shown, stream=stream)
    assert list(progress.over("abc")) == ["a", "b", "c"]
    assert ("3/3" in capsys.readouterr().err + stream.getvalue()) == bar
    assert progress.in_lines == lines
