"""How any stage runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run behaves; none of this changes a result.

    Attributes:
        workers: threads that work in parallel.
        force: redo finished work, and replace what was made otherwise.
        replace: replace what was made otherwise, with other settings or by others;
            finished work of the same settings and inputs is kept.
        strict: stop at the first item that fails.
        progress: show a bar; None shows it on a terminal, and elsewhere a line every
            ten seconds.
    """

    workers: int = 2
    force: bool = False
    replace: bool = False
    strict: bool = False
    progress: bool | None = None

    @property
    def replaces(self) -> bool:
        """Whether what was made otherwise is replaced, not refused."""
        return self.force or self.replace
