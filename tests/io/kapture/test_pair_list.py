"""Lists of pairs as arrays, against the same with Python's objects."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io import lists
from r2d2_kapture.io.kapture import pair_list, pairs
from r2d2_kapture.io.kapture.pair_list import ImagePair, PairList, ranks, sorted_pair
from r2d2_kapture.io.kapture.pairs import pairs_sha256, read_pairs, write_pairs

NAMES = ["é b.jpg", "a/1.jpg", "a-1.jpg", "Z z.jpg", "c.jpg"]


def some_pairs(count: int, seed: int) -> list[ImagePair]:
    """With duplicates in both orders, and equal scores."""
    rng = random.Random(seed)
    return [
        ImagePair(image1=first, image2=second, score=rng.choice([0.25, 0.5, 1.0]))
        for first, second in (rng.sample(NAMES, 2) for _ in range(count))
    ]


def best_first(pair: ImagePair) -> tuple[str, float, str]:
    return pair.image1, -pair.score, pair.image2


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_order_and_choice(count: int) -> None:
    listed = some_pairs(count, seed=count)
    found = PairList.of(listed)
    assert found == listed and listed == found and list(found) == listed
    assert found != [*listed, *listed[:1], ImagePair(image1="x", image2="y")]
    assert found[1:] == listed[1:] and [found[i] for i in range(count)] == listed
    assert found.best_first() == sorted(listed, key=best_first)
    first: dict[tuple[str, str], ImagePair] = {}
    for pair in listed:
        first.setdefault(sorted_pair(*pair.names), pair)
    assert found.unique() == list(first.values())
    rows, unique_row = found.unordered_rows()
    assert found.where(rows) == found.unique()
    assert [sorted_pair(*found[int(rows[k])].names) for k in unique_row] == [
        sorted_pair(*pair.names) for pair in listed
    ]
    assert [p.names for p in found.swapped()] == [p.names[::-1] for p in listed]
    assert [p.names for p in found.in_name_order()] == [
        sorted_pair(*pair.names) for pair in listed
    ]
    assert found.images == sorted({name for pair in listed for name in pair.names})
    assert found.holding(NAMES[:2]).tolist() == [
        len({*pair.names} & {*NAMES[:2]}) for pair in listed
    ]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_best_of_each(count: int) -> None:
    listed = some_pairs(60, seed=7)
    first: dict[tuple[str, str], ImagePair] = {}
    for pair in listed:
        first.setdefault(pair.names, pair)
    groups = itertools.groupby(
        sorted(first.values(), key=best_first), key=lambda pair: pair.image1
    )
    kept = [pair for _, group in groups for pair in itertools.islice(group, count)]
    expected = [pair for pair in first.values() if pair in kept]
    assert PairList.of(listed).best_of_each(count) == expected


def test_lists_one_after_another() -> None:
    parts = [
        some_pairs(5, 1),
        [],
        [ImagePair(image1="A", image2="b")],
        some_pairs(3, 2),
    ]
    joined = PairList.joined(map(PairList.of, parts))
    assert joined == list(itertools.chain.from_iterable(parts))
    assert PairList.joined([]) == PairList.of([]) == []


def test_the_digest_follows_pairs_order_and_scores_alone() -> None:
    listed = some_pairs(6, 3)
    digest = PairList.of(listed).digest
    assert PairList.of([*listed, *some_pairs(9, 4)])[:6].digest == digest
    for other in (listed[1:], listed[::-1], [*listed[:5], some_pairs(1, 9)[0]]):
        assert PairList.of(other).digest != digest


def test_ranks_of_groups() -> None:
    groups = np.array([2, 2, 2, 5, 7, 7])
    assert ranks(groups).tolist() == [0, 1, 2, 0, 0, 1]
    assert ranks(groups[:0]).tolist() == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_same_whatever_is_read_and_written_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    listed = PairList.of(some_pairs(30, 5)).unique()
    path = tmp_path / "pairs.txt"
    write_pairs(path, listed)
    text = path.read_text("utf-8")
    monkeypatch.setattr(pair_list, "BLOCK_PAIRS", 3)
    monkeypatch.setattr(pairs, "BLOCK_PAIRS", 3)
    monkeypatch.setattr(lists, "BLOCK_CHARACTERS", 40)
    write_pairs(tmp_path / "blocks.txt", iter(listed))
    assert (tmp_path / "blocks.txt").read_text("utf-8") == text
    path.write_bytes(text.replace("\n", end).encode(encoding))
    assert read_pairs(path) == listed and list(read_pairs(path)) == list(listed)
    broken = text + "a\0, b, 1\n"
    path.write_bytes(broken.replace("\n", end).encode(encoding))
    with pytest.raises(DatasetError, match="found NUL, expected a list of pairs"):
        read_pairs(path)


def test_an_equal_list_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    listed = some_pairs(9, 6)
    write_pairs(path, listed)
    before = path.stat()
    assert pairs_sha256(path, listed) == pairs_sha256(path, PairList.of(listed))
    write_pairs(path, listed)
    assert path.stat().st_ino == before.st_ino
    write_pairs(path, listed[1:])
    assert path.stat().st_ino != before.st_ino and read_pairs(path)
