"""Late fusion of lists, against tables made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.kapture.pairs import ImagePair, read_pairs, write_pairs
from r2d2_kapture.types import Report
from tests.scenes.kapture_files import write_dataset
from tests.stages.pair_runs import names_in, run

MAPPING = ["m1", "m2", "m3", "m4"]
QUERIES = ["q1", "q2"]
ONE = {
    ("q1", "m1"): 0.9,
    ("q1", "m2"): 0.8,
    ("q1", "m3"): 0.4,
    ("q2", "m4"): 0.6,
}
"""Its lowest score is 0.4."""
TWO = {("q1", "m3"): 0.7, ("q1", "m2"): 0.5, ("q1", "m4"): 0.2, ("q2", "m1"): 0.8}
"""Its lowest score is 0.2."""
SCORES = {
    "mean": {
        "q1": {"m2": 0.65, "m1": 0.55, "m3": 0.55, "m4": 0.3},
        "q2": {"m1": 0.6, "m4": 0.4},
    },
    "power": {
        "q1": {
            "m2": 0.4**0.5,
            "m3": 0.28**0.5,
            "m1": 0.18**0.5,
            "m4": 0.08**0.5,
        },
        "q2": {"m1": 0.32**0.5, "m4": 0.12**0.5},
    },
    "min": {
        "q1": {"m2": 0.5, "m3": 0.4, "m1": 0.2, "m4": 0.2},
        "q2": {"m1": 0.4, "m4": 0.2},
    },
    "max": {
        "q1": {"m1": 0.9, "m2": 0.8, "m3": 0.7, "m4": 0.4},
        "q2": {"m1": 0.8, "m4": 0.6},
    },
    "round_robin": {
        "q1": {"m1": 1, "m3": 1 / 2, "m2": 1 / 3, "m4": 1 / 4},
        "q2": {"m4": 1, "m1": 1 / 2},
    },
}


def write(path: Path, scores: dict[tuple[str, str], float]) -> Path:
    pairs = [ImagePair(image1=a, image2=b, score=s) for (a, b), s in scores.items()]
    write_pairs(path, pairs)
    return path


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "mapping", MAPPING)


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "query", QUERIES)


@pytest.fixture
def lists(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "one.txt", ONE), write(tmp_path / "two.txt", TWO)]


def fuse(root: Path, lists: list[Path], **settings: object) -> Report:
    return run(
        root, lists[0].with_name("p.txt"), method="fuse", merge=lists, **settings
    )


@pytest.mark.parametrize("fusion", SCORES)
@pytest.mark.parametrize("top_k", [0, 2])
def test_queries_by_a_table(
    mapping: Path, query: Path, lists: list[Path], fusion: str, top_k: int
) -> None:
    fuse(mapping, lists, query=query, fusion=fusion, top_k=top_k)
    expected = {
        (image, other): score
        for image, scores in SCORES[fusion].items()
        for other, score in list(scores.items())[: top_k or None]
    }
    found = read_pairs(lists[0].with_name("p.txt"))
    assert {pair.names: pair.score for pair in found} == pytest.approx(
        expected, rel=1e-5
    )
    assert [pair.names for pair in found] == list(expected)


def test_round_robin_is_the_default_and_ranks_lists_of_any_scale(
    mapping: Path, query: Path, lists: list[Path]
) -> None:
    fuse(mapping, lists, query=query, top_k=3)
    first = (lists[0].with_name("p.txt")).read_bytes()
    write(lists[1], {names: 1000 * score for names, score in TWO.items()})
    report = fuse(mapping, lists, query=query, top_k=3)
    assert lists[0].with_name("p.txt").read_bytes() == first
    assert report.warnings == ()
    lists[0].with_name("p.txt").unlink()
    report = fuse(mapping, lists, query=query, top_k=3, fusion="mean")
    (warning,) = report.warnings
    assert "one.txt 0.4 to 0.9, two.txt 200 to 800" in warning


def test_a_pair_of_mapping_images_is_one_of_both(mapping: Path, tmp_path: Path) -> None:
    """m4 keeps its best, m1, though m1 has two better ones."""
    one = write(
        tmp_path / "one.txt",
        {("m1", "m2"): 0.9, ("m1", "m3"): 0.8, ("m1", "m4"): 0.7},
    )
    two = write(tmp_path / "two.txt", {("m2", "m3"): 0.6})
    for fusion in ("round_robin", "max"):
        fuse(mapping, [one, two], fusion=fusion, top_k=1)
        expected = {("m1", "m2"), ("m1", "m3"), ("m1", "m4")}
        assert set(names_in(tmp_path / "p.txt")) == expected
        (tmp_path / "p.txt").unlink()
    fuse(mapping, [one, two], top_k=2)
    found = {pair.names: pair.score for pair in read_pairs(tmp_path / "p.txt")}
    # m2's best of the second list is its second of all, as it is for m3
    assert found.pop(("m2", "m3")) == 0.5
    assert found == {("m1", "m2"): 1, ("m1", "m3"): 1, ("m1", "m4"): 1}


def test_lists_without_pairs_and_alone(
    mapping: Path, query: Path, lists: list[Path], tmp_path: Path
) -> None:
    nothing = write(tmp_path / "nothing.txt", {})
    for fusion in SCORES:
        fuse(mapping, [lists[0], nothing], query=query, fusion=fusion, top_k=0)
        assert set(names_in(tmp_path / "p.txt")) == set(ONE)
        (tmp_path / "p.txt").unlink()
    report = fuse(mapping, [nothing], query=query, fusion="mean")
    assert report.done == 0 and "2 of 2 images are in no pair" in report.warnings[0]


def test_what_no_fusion_can_take(
    mapping: Path, query: Path, lists: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--method fuse: found no --merge"):
        run(mapping, tmp_path / "x.txt", method="fuse")
    with pytest.raises(DatasetError, match="one.txt: .*'q1' in .*need --query"):
        fuse(mapping, lists)
    write(lists[1], {("m1", "q1"): 1})
    with pytest.raises(DatasetError, match="two.txt: .*'m1' in .*must be a query"):
        fuse(mapping, lists, query=query)
    write(lists[1], {("q1", "m1"): -0.1})
    with pytest.raises(DatasetError, match="two.txt: found a score of -0.1"):
        fuse(mapping, lists, query=query, fusion="power")
    with pytest.raises(ConfigError, match="--fusion: found 'best'"):
        fuse(mapping, lists, query=query, fusion="best")
    assert not (tmp_path / "p.txt").exists()


def test_twice_is_once(mapping: Path, query: Path, lists: list[Path]) -> None:
    report = fuse(mapping, lists, query=query)
    data = lists[0].with_name("p.txt").read_bytes()
    again = fuse(mapping, lists, query=query)
    assert (again.done, again.skipped) == (0, report.done)
    assert lists[0].with_name("p.txt").read_bytes() == data


def test_a_pair_that_moves_to_another_list_is_noticed(
    mapping: Path, query: Path, tmp_path: Path
) -> None:
    """All lists one after another are the same pairs, and the ranks are not."""
    best, second, third = (("q1", name) for name in ("m1", "m2", "m3"))
    lists = [tmp_path / "one.txt", tmp_path / "two.txt"]
    found = []
    for one, two in ([[best, second], [third]], [[best], [second, third]]):
        write(lists[0], dict.fromkeys(one, 1.0))
        write(lists[1], dict.fromkeys(two, 1.0))
        fuse(mapping, lists, query=query)
        found.append(names_in(tmp_path / "p.txt"))
    assert found == [[best, third, second], [best, second, third]]
