"""Reading ahead: order, bounds, and futures that outlive their generator."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from r2d2_kapture.stages.background_io import (
    WriteBehind,
    one_core_a_thread,
    read_ahead,
)


def test_items_come_in_order_with_what_was_loaded() -> None:
    loaded = [(i, future.result()) for i, future in read_ahead(range(9), str, 3)]
    assert loaded == [(i, str(i)) for i in range(9)]


def test_futures_may_be_waited_for_after_the_last_item() -> None:
    go = threading.Event()

    def load(item: int) -> int:
        go.wait(10)
        return item * item

    futures: list[Future[int]] = []
    done = threading.Event()

    def read() -> None:
        futures.extend(future for _, future in read_ahead(range(6), load, 1))
        done.set()

    reader = threading.Thread(target=read)
    reader.start()
    # the generator now waits for its threads, with several loads not begun
    assert not done.wait(0.1)
    go.set()
    reader.join(10)
    assert [future.result(0) for future in futures] == [0, 1, 4, 9, 16, 25]


def test_what_no_one_will_read_is_not_loaded() -> None:
    begun: list[int] = []
    loading = read_ahead(range(1000), lambda item: begun.append(item), 2)
    next(loading)
    loading.close()
    assert len(begun) < 10


def test_the_first_failure_of_a_write_is_raised() -> None:
    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind() as write_behind:
        write_behind(fail)


def threads_of_a_new_thread() -> int:
    """That torch computes with there."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_one_core_a_thread_is_over_for_threads_started_after_it() -> None:
    """Also where one of its own threads does the same and ends later."""

    def nested() -> int:
        with one_core_a_thread():
            inside.set()
            left.wait(10)
            return torch.get_num_threads()

    inside, left = threading.Event(), threading.Event()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as pool:
            with one_core_a_thread():
                found = pool.submit(nested)
                assert inside.wait(10)
                assert threads_of_a_new_thread() == 1
            left.set()
            assert found.result(10) == 1
        assert torch.get_num_threads() == 3
        assert threads_of_a_new_thread() == 3
    finally:
        torch.set_num_threads(before)
