"""A cache of loaded values: bounded in bytes, shared by threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LoadingCache(Generic[Key, Value]):
    """Calls ``load`` for a key unless its value is cached.

    The least recently used values are dropped first. Threads that request a value while
    it is being loaded wait for it; a failure is raised in all of them, and not cached.

    Args:
        load: returns the value of a key.
        size: of a value, in bytes.
        limit: bytes cached, besides values being loaded.
    """

    def __init__(
        self,
        load: Callable[[Key], Value],
        size: Callable[[Value], int],
        limit: int,
    ) -> None:
        self._load = load
        self._size = size
        self._limit = limit
        self._lock = Lock()
        self._loading: dict[Key, Future[Value]] = {}
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._bytes = 0
        self.loads = 0

    def __call__(self, key: Key) -> Value:
        """The value of a key; raises what ``load`` raises."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            others = self._loading.get(key)
            if others is None:
                ours = self._loading[key] = Future()
                self.loads += 1
        if others is not None:
            return others.result()
        try:
            value = self._load(key)
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            ours.set_exception(error)
            raise
        with self._lock:
            del self._loading[key]
            self._keep(key, value)
        ours.set_result(value)
        return value

    def _keep(self, key: Key, value: Value) -> None:
        self._kept[key] = value
        self._bytes += self._size(value)
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= self._size(oldest)
