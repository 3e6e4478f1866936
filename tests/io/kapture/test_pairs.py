"""Lists of pairs: round trips, kapture's reader, broken lines."""

from __future__ import annotations

from pathlib import Path

import kapture.io.csv as kcsv
import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.pairs import (
    ImagePair,
    read_pairs,
    unique_pairs,
    write_pairs,
)

PAIRS = [
    ImagePair(image1="query/b c.jpg", image2="été/à.jpg", score=0.25),
    ImagePair(image1="query/b c.jpg", image2="a.jpg", score=-1e-7),
    ImagePair(image1="a/b.jpg", image2="a-b.jpg"),
    ImagePair(image1="4.42\u202fPM.jpg", image2="a\u00a0/\u3000\u200db.jpg"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.txt"


def test_what_is_written_is_read_by_us_and_by_kapture(path: Path) -> None:
    path = path.parent / "sub" / "pairs.txt"
    write_pairs(path, PAIRS)
    assert read_pairs(path) == PAIRS
    assert path.read_bytes().startswith(b"# kapture format: 1.1\n")
    with open(path, encoding="utf-8") as file:
        rows = list(kcsv.table_from_file(file))
    assert [(a, b, float(score)) for a, b, score in rows] == [
        (*pair.names, pair.score) for pair in PAIRS
    ]
    write_pairs(path, [])
    assert read_pairs(path) == []


def test_both_orders_are_one_pair_as_it_came_first(path: Path) -> None:
    first = ImagePair(image1="b", image2="a", score=0.5)
    other = ImagePair(image1="a", image2="b", score=0.9)
    assert unique_pairs([first, other, first]) == [first]
    write_pairs(path, [first, other])
    assert read_pairs(path) == [first]


def test_comments_blank_lines_and_spaces(path: Path) -> None:
    path.write_text("# x\n\n  a b.jpg ,c.jpg,  1e-3 \n#d, e, 1\n", "utf-8")
    assert read_pairs(path) == [ImagePair(image1="a b.jpg", image2="c.jpg", score=1e-3)]


@pytest.mark.parametrize(
    "line, message",
    [
        ("a.jpg", "line 2: 'a.jpg' is not a pair of images"),
        ("a b.jpg c.jpg", "line 2: 'a b.jpg c.jpg' is not a pair of images"),
        ("a, b, c.jpg, d.jpg, 1", "line 2: 'a, b, c.jpg, d.jpg, 1' is not a pair"),
        ("a,1.jpg b.jpg", "line 2: 'a,1.jpg b.jpg' could be several pairs"),
        ("a.jpg\tb.jpg\thigh", "line 2: score 'high', no number"),
        ("a.jpg, b.jpg, high", "score 'high', no number"),
        ("a.jpg, b.jpg, nan", "score NaN"),
        ("a.jpg, a.jpg, 1", "pairs 'a.jpg' with itself"),
        ("../a.jpg, b.jpg, 1", "leaves the dataset's folder"),
        ("a.jpg, /etc/b.jpg, 1", "leaves the dataset's folder"),
        ("a.jpg, , 1", "leaves the dataset's folder or cannot be a file name"),
        ("a.jpg, b\x0b.jpg, 1", r"line 2: name 'b\x0b.jpg' holds the character U+000B"),
    ],
)
def test_broken_lines_are_named(path: Path, line: str, message: str) -> None:
    path.write_text(f"# header\n{line}\n", "utf-8")
    with pytest.raises(DatasetError, match=str(path)) as caught:
        read_pairs(path)
    assert message in str(caught.value)


def test_a_list_that_is_not_there_or_no_text(path: Path) -> None:
    with pytest.raises(DatasetError, match="found no such file"):
        read_pairs(path)
    with pytest.raises(DatasetError, match="found no such file"):
        read_pairs(path.parent)
    path.write_bytes("é, b, 1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_pairs(path)


def test_a_name_that_is_not_utf_8_does_not_stop_the_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"a.jpg b\xe9.jpg\na.jpg c.jpg\nb\xe9.jpg c.jpg\n")
    assert [pair.names for pair in read_pairs(path)] == [("a.jpg", "c.jpg")]
    (message,) = caplog.messages
    assert message.startswith(f"{path}: line 1 holds the byte 0xE9, which is not UTF-8")
    assert message.endswith("such pairs left out: 2")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a,b.jpg", "c.jpg"), "'a,b.jpg': found a comma"),
        (("#1.jpg", "b.jpg"), "'#1.jpg': found # in front"),
        (("b.jpg", "#1.jpg"), "'#1.jpg': found # in front"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_list(
    path: Path, names: tuple[str, str], message: str
) -> None:
    write_pairs(path, PAIRS)
    with pytest.raises(DatasetError, match=message):
        write_pairs(path, [ImagePair(image1=names[0], image2=names[1])])
    assert read_pairs(path) == PAIRS
    with pytest.raises(OutputError, match="cannot write"):
        write_pairs(path.parent, PAIRS)


@pytest.mark.parametrize(
    ("line", "score"),
    [
        ("a 1.jpg, b 2.jpg, 0.5", 0.5),
        ("a 1.jpg,b 2.jpg", 1),
        ("a 1.jpg\tb 2.jpg", 1),
        ("a 1.jpg\t b 2.jpg\t0.5", 0.5),
        ("a 1.jpg b 2.jpg", 1),
        ("  a 1.jpg   b 2.jpg 0.5 ", 0.5),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_tool_writes_pairs_in_its_way(
    path: Path, line: str, score: float, encoding: str, end: str
) -> None:
    path.write_bytes(
        f"{line}{end}c.jpg d.jpg{end}e.jpg f.jpg 2e-1{end}".encode(encoding)
    )
    assert read_pairs(path, {"a 1.jpg", "b 2.jpg", "a", "1.jpg", "2.jpg"}) == [
        ImagePair(image1="a 1.jpg", image2="b 2.jpg", score=score),
        ImagePair(image1="c.jpg", image2="d.jpg"),
        ImagePair(image1="e.jpg", image2="f.jpg", score=0.2),
    ]


def test_known_names_decide_and_may_not_suffice(path: Path) -> None:
    path.write_text("a,1.jpg b.jpg\n", "utf-8")
    (pair,) = read_pairs(path, {"a,1.jpg", "b.jpg"})
    assert pair.names == ("a,1.jpg", "b.jpg")
    path.write_text("a b c\n", "utf-8")
    assert read_pairs(path, {"a b", "c"})[0].names == ("a b", "c")
    with pytest.raises(DatasetError, match="line 1: 'a b c' could be several pairs"):
        read_pairs(path, {"a b", "c", "a", "b c"})
