"""The cache that threads share: each value loaded once, bytes bounded."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from r2d2_kapture.io.kapture.pairs import ImagePair
from r2d2_kapture.stages.match import stage as match
from r2d2_kapture.stages.match.cache import LoadingCache


def make(limit: int) -> LoadingCache[str, bytes]:
    return LoadingCache(lambda key: key.encode() * 10, len, limit)


def test_values_are_loaded_once_and_the_least_recently_used_is_dropped() -> None:
    cache = make(100)
    assert [cache("a"), cache("b"), cache("a")] == [b"a" * 10, b"b" * 10, b"a" * 10]
    assert cache.loads == 2
    cache = make(20)
    for key in ("a", "b", "a", "c"):
        cache(key)
    assert cache.loads == 3
    cache("a")
    assert cache.loads == 3
    cache("b")
    assert cache.loads == 4
    cache = make(9)
    assert cache("a") == cache("a") == b"a" * 10
    assert cache.loads == 2


def test_threads_wait_for_one_load() -> None:
    release, entered = threading.Event(), threading.Event()

    def load(key: str) -> str:
        entered.set()
        assert release.wait(10)
        return key.upper()

    cache = LoadingCache(load, len, 100)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(cache, "a") for _ in range(4)]
        assert entered.wait(10)
        release.set()
        assert [future.result() for future in futures] == ["A"] * 4
    assert cache.loads == 1


def test_a_failure_is_passed_on_and_not_kept() -> None:
    answers = iter([ValueError("no"), "yes"])

    def load(key: str) -> str:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    cache = LoadingCache(load, len, 100)
    with pytest.raises(ValueError, match="no"):
        cache("a")
    assert cache("a") == "yes"


def grid(count: int) -> list[ImagePair]:
    return [
        ImagePair(image1=f"{i:03d}", image2=f"{j:03d}")
        for i, j in itertools.combinations(range(count), 2)
    ]


def test_caching_order_keeps_pairs_and_reads_images_seldom() -> None:
    pairs = grid(40)
    ordered = match.in_caching_order(pair.names for pair in pairs)
    assert sorted(ordered) == sorted(pair.names for pair in pairs)

    def reads(order: list[tuple[str, str]]) -> int:
        cache = LoadingCache(str.upper, lambda value: 1, limit=10)
        for pair in order:
            for image in pair:
                cache(image)
        return cache.loads

    assert reads(ordered) < 0.4 * reads([pair.names for pair in pairs])
