"""Options of all stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.slices import SharedWork


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run, which do not affect results.

    Attributes:
        workers: threads that work in parallel.
        force: redo finished work, and replace outputs of other settings.
        replace: replace outputs of other settings or third parties; finished work of
            the same settings and inputs is kept.
        strict: stop at the first item that fails.
        progress: show a bar; None shows it on a terminal, else a line every ten
            seconds.
        on_progress: called with each number of items that are finished.
        make_slices: called by a run that puts slices together, with those to be made
            first; gives details of the report. None refuses to go on without them.
    """

    workers: int = 2
    force: bool = False
    replace: bool = False
    strict: bool = False
    progress: bool | None = None
    on_progress: Callable[[int], None] | None = None
    make_slices: Callable[[SharedWork], Mapping[str, Any]] | None = None

    @property
    def replaces(self) -> bool:
        """Whether outputs of other settings are replaced instead of refused."""
        return self.force or self.replace

    def sharing(self, slice: str) -> str:
        """The flag that asks for slices, of which this one is made."""
        return f"--slice {slice}" if self.make_slices is None else "--executor ray"
