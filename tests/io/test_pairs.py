"""Lists of pairs: round trips, kapture's reader, broken lines."""

from __future__ import annotations

from pathlib import Path

import kapture.io.csv as kcsv
import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.pairs import ImagePair, read_pairs, unique_pairs, write_pairs

PAIRS = [
    ImagePair(image1="query/b c.jpg", image2="été/à.jpg", score=0.25),
    ImagePair(image1="query/b c.jpg", image2="a.jpg", score=-1e-7),
    ImagePair(image1="a/b.jpg", image2="a-b.jpg"),
]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "pairs.txt"
    write_pairs(path, PAIRS)
    assert read_pairs(path) == PAIRS
    assert path.read_bytes().startswith(b"# kapture format: 1.1\n")


def test_kapture_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, PAIRS)
    with open(path, encoding="utf-8") as file:
        rows = list(kcsv.table_from_file(file))
    assert [(a, b, float(score)) for a, b, score in rows] == [
        (*pair.names, pair.score) for pair in PAIRS
    ]


def test_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [])
    assert read_pairs(path) == []


def test_both_orders_are_one_pair_as_it_came_first(tmp_path: Path) -> None:
    first = ImagePair(image1="b", image2="a", score=0.5)
    other = ImagePair(image1="a", image2="b", score=0.9)
    assert unique_pairs([first, other, first]) == [first]
    path = tmp_path / "pairs.txt"
    write_pairs(path, [first, other])
    assert read_pairs(path) == [first]


def test_comments_blank_lines_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# x\n\n  a b.jpg ,c.jpg,  1e-3 \n#d, e, 1\n", "utf-8")
    assert read_pairs(path) == [ImagePair(image1="a b.jpg", image2="c.jpg", score=1e-3)]


@pytest.mark.parametrize(
    "line, message",
    [
        ("a.jpg, b.jpg", "line 2: found 2 fields"),
        ("a, b, c.jpg, d.jpg, 1", "line 2: found 5 fields"),
        ("a.jpg, b.jpg, high", "score 'high', no number"),
        ("a.jpg, b.jpg, nan", "score NaN"),
        ("a.jpg, a.jpg, 1", "pairs 'a.jpg' with itself"),
        ("../a.jpg, b.jpg, 1", "leaves the dataset's folder"),
        ("a.jpg, /etc/b.jpg, 1", "leaves the dataset's folder"),
        ("a.jpg, , 1", "leaves the dataset's folder or cannot be a file name"),
        ("a.jpg, b\x0b.jpg, 1", "control character"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(f"# header\n{line}\n", "utf-8")
    with pytest.raises(DatasetError, match=str(path)) as caught:
        read_pairs(path)
    assert message in str(caught.value)


def test_a_list_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no such file"):
        read_pairs(tmp_path / "none.txt")
    with pytest.raises(DatasetError, match="found no such file"):
        read_pairs(tmp_path)
    (tmp_path / "latin.txt").write_bytes("é, b, 1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_pairs(tmp_path / "latin.txt")


def test_a_comma_cannot_be_written_and_leaves_the_old_list(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, PAIRS)
    with pytest.raises(DatasetError, match="'a,b.jpg': found a comma"):
        write_pairs(path, [ImagePair(image1="a,b.jpg", image2="c.jpg")])
    assert read_pairs(path) == PAIRS


@pytest.mark.parametrize("names", [("#1.jpg", "b.jpg"), ("b.jpg", "#1.jpg")])
def test_a_name_that_would_be_a_comment_cannot_be_written(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    pair = ImagePair(image1=names[0], image2=names[1])
    with pytest.raises(DatasetError, match="'#1.jpg': found # in front"):
        write_pairs(tmp_path / "pairs.txt", [pair])


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_pairs(tmp_path, PAIRS)
