"""How far a long run is: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO, TypeVar

from tqdm import tqdm

from r2d2_kapture.types import counted

Item = TypeVar("Item")

FIRST_LINE_SECONDS, LINE_SECONDS = 4.0, 10.0
BYTES = "byte"
MEGABYTE = 1e6


class Progress:
    """Counts finished items, and shows how many there are while it is entered.

    Args:
        description: of what is done, such as the name of the stage.
        unit: what is counted, in the singular: "photograph", "pair"; BYTES are shown
            in MB; empty where nothing can be counted, and the time is all there is.
        total: how many there are; None where unknown.
        done: how many of them were finished by an earlier run.
        steady: whether the remaining time can be estimated from finished items.
        shown: True shows a bar, False nothing, None a bar on a terminal and else lines.
        also: called with each number of items that are finished, earlier ones first.
        clock: seconds from any origin on.
        stream: to write to; None is stderr.

    Attributes:
        in_lines: whether lines are written.
    """

    def __init__(
        self,
        description: str,
        unit: str,
        total: int | None,
        *,
        done: int = 0,
        steady: bool = True,
        shown: bool | None = None,
        also: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        self._description, self._unit, self._total = description, unit, total
        self._earlier = self._done = done
        self._steady = steady
        self._also = also
        if also is not None:
            also(done)
        self._stream = sys.stderr if stream is None else stream
        terminal = self._stream.isatty()
        self._bar: tqdm[None] = tqdm(
            total=total,
            file=self._stream,
            initial=done,
            desc=description,
            unit="B" if unit == BYTES else unit,
            unit_scale=unit == BYTES,
            bar_format=_bar_format(unit, steady),
            disable=not (terminal if shown is None else shown),
        )
        self.in_lines = shown is None and not terminal
        self._clock = clock
        self._started = clock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.in_lines:
            self._thread = threading.Thread(
                target=self.write_lines, args=(self._ended.wait,), daemon=True
            )
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many more items are finished."""
        self._done += count
        self._bar.update(count)
        if self._also is not None:
            self._also(count)

    def describe(self, description: str) -> None:
        """Show from now on what is done under another description."""
        self._description = description
        self._bar.set_description(description)

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Go through items, which are finished one after the other."""
        with self:
            for item in items:
                yield item
                self.update()

    def write_lines(self, wait: Callable[[float], bool]) -> None:
        """Write a line now and then.

        Args:
            wait: for so many seconds; says whether the end came in between.
        """
        seconds = FIRST_LINE_SECONDS
        while not wait(seconds):
            self._stream.write(self.line() + "\n")
            self._stream.flush()
            seconds = LINE_SECONDS

    def line(self) -> str:
        """Such as ``extract: 120 of 400 photographs, 0:35, about 1:20 left``."""
        seconds = self._clock() - self._started
        done = self._done if self._total is None else min(self._done, self._total)
        if not self._unit:
            return f"{self._description}: {minutes(seconds)}"
        of_total = [] if self._total is None else [self._total]
        if self._unit == BYTES:
            numbers = [f"{value / MEGABYTE:.1f}" for value in (done, *of_total)]
            count = " of ".join(numbers) + " MB"
        else:
            *before, last = done, *of_total
            count = " of ".join([*map(str, before), counted(last, self._unit)])
        parts = [count, minutes(seconds)]
        made = done - self._earlier
        if self._steady and self._total is not None and 0 < made and done < self._total:
            left = seconds / made * (self._total - done)
            parts.append(f"about {minutes(left)} left")
        return f"{self._description}: {', '.join(parts)}"


def _bar_format(unit: str, steady: bool) -> str | None:
    if not unit:
        return "{desc}"
    return None if steady else "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}]"


def minutes(seconds: float) -> str:
    """Such as 0:05, 12:40 or 3:00:00."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    if hours:
        return f"{hours}:{rest // 60:02}:{rest % 60:02}"
    return f"{rest // 60}:{rest % 60:02}"
