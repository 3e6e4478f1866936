"""Work in threads: reading ahead and writing behind, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import ParamSpec, TypeVar

import torch

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
P = ParamSpec("P")


def read_ahead(
    items: Iterable[Item], load: Callable[[Item], Loaded], workers: int
) -> Generator[tuple[Item, Future[Loaded]], None, None]:
    """Load items in threads, in order, at most ``workers + 1`` ahead of the consumer.

    Yields:
        Each item with its future, which the consumer may wait for at any later time.
    """
    pending: deque[tuple[Item, Future[Loaded]]] = deque()
    pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="read")
    try:
        for item in items:
            pending.append((item, pool.submit(load, item)))
            if len(pending) > workers:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
    finally:
        # the consumer may not have waited for these yet
        pool.shutdown(wait=True, cancel_futures=bool(pending))


class WriteBehind:
    """One writer thread: calls run in order, at most ``backlog`` wait.

    The first failure is raised by the next call, or at the end of the block. When the
    block itself fails, queued calls still run, so that no finished work is lost.
    """

    def __init__(self, backlog: int = 4) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending: deque[Future[None]] = deque()
        self._backlog = backlog

    def __enter__(self) -> WriteBehind:
        return self

    def __call__(
        self, write: Callable[P, None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Queue ``write(*args, **kwargs)``."""
        self._pending.append(self._pool.submit(write, *args, **kwargs))
        while len(self._pending) > self._backlog:
            self._pending.popleft().result()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for future in self._pending:
                future.result()


@contextmanager
def one_core_a_thread() -> Iterator[None]:
    """Limit torch to one thread, in every thread started inside."""
    threads = torch.get_num_threads()
    if threads == 1:
        # it may be one of those threads, and would restore what it found for good
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
