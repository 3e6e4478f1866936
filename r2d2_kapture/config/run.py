"""Options of all stages."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    workers: int = 2
    force: bool = False
    replace: bool = False
    strict: bool = False
    progress: bool | None = None

    @property
    def replaces(self) -> bool:
        """Whether outputs of other settings are replaced instead of refused."""
        return self.force or self.replace
