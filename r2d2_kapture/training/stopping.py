"""Stop between two steps when the user or the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; the second one interrupts at once.

        Raises:
            KeyboardInterrupt: at the second signal.
        """
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request for the length of the block.

    Only the main thread may handle signals; in another one nothing is changed.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_parent(worker: int) -> None:
    """Let a process that makes batches outlive the signal to stop.

    Ctrl-C, torchrun and timeout signal a whole group of processes; a worker that died
    of it would take the step under way along. Workers end with the process that they
    work for in any case.

    Args:
        worker: its number, which the loader passes.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
