"""Processes that tests start, to be stopped in the middle."""

from __future__ import annotations

import signal


def listen_to_ctrl_c() -> None:
    """Before a process begins: undo that a shell's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
