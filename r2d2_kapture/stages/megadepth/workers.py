"""Runs jobs in processes of their own, several in parallel.

COLMAP may abort the process on broken input: here only one job fails.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from r2d2_kapture.errors import DatasetError, R2D2KaptureError

Job = tuple[Any, ...]


def run_apart(
    work: Callable[..., Any], jobs: Sequence[Job], workers: int
) -> Generator[tuple[int, Any], None, None]:
    """Run ``work(*job)`` for each job, and end the processes when the caller leaves.

    Args:
        work: a function at the top of a module.
        jobs: arguments, which must be picklable.
        workers: greatest number of processes.

    Yields:
        Number of the job, and its result or expected failure, in order of completion.

    Raises:
        RuntimeError: an unexpected failure of a job; the text is its traceback.
    """
    context = multiprocessing.get_context("spawn")  # a fork copies the locks of threads
    waiting = list(enumerate(jobs))[::-1]
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < max(workers, 1):
                number, job = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, work, job))
                process.start()
                sender.close()
                running.append(_Running(number, process, receiver))
            ready = wait([one.receiver for one in running])
            for ended in [one for one in running if one.receiver in ready]:
                running.remove(ended)
                result = _receive(ended.receiver)
                ended.process.join()
                if isinstance(result, _Defect):
                    raise RuntimeError(result.text)
                yield ended.number, result
    finally:
        for one in running:
            one.process.kill()  # COLMAP prints a message at SIGTERM
        for one in running:
            one.process.join()


@dataclass(frozen=True, eq=False)
class _Running:
    number: int
    process: BaseProcess
    receiver: Connection


@dataclass(frozen=True)
class _Defect:
    """The traceback of an unexpected exception."""

    text: str


def _receive(receiver: Connection) -> Any:
    try:
        with receiver:
            return receiver.recv()
    except EOFError:
        return DatasetError(
            "its process died: COLMAP crashed on broken input, or memory was "
            "insufficient; check its files, or use fewer --workers"
        )


def _work(sender: Connection, work: Callable[..., Any], job: Job) -> None:
    """Run one job; the parent process handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = work(*job)
    except (R2D2KaptureError, MemoryError, OSError) as error:
        expected = isinstance(error, R2D2KaptureError)
        result = error if expected else DatasetError(str(error) or "out of memory")
    except Exception as error:  # a defect, raised by the parent
        result = _Defect("".join(traceback.format_exception(error)))
    sender.send(result)
