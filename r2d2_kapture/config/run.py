"""How any stage runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run behaves; none of this changes a result.

    Attributes:
        workers: threads that work beside each other.
        force: redo finished work.
        strict: stop at the first item that fails.
        progress: show a bar; None shows it on a terminal only.
    """

    workers: int = 2
    force: bool = False
    strict: bool = False
    progress: bool | None = None
