"""Tables hold what they were given."""

from __future__ import annotations

import csv

from r2d2_kapture.evaluation.tables import Row, csv_table, markdown_table

ROWS = [
    Row(names=("overall", "a"), values={"pairs": 15, "MMA@1": 0.12345}),
    Row(names=("overall", "b|c"), values={"pairs": 540}),
]


def test_markdown_is_aligned_and_rounded() -> None:
    columns = {"pairs": "pairs", "MMA@1": "MMA@1", "none@1": "never"}
    table = markdown_table(("of", "label"), columns, ROWS)
    assert table == (
        "| of      | label | pairs | MMA@1 |\n"
        "| ------- | ----- | ----: | ----: |\n"
        "| overall | a     |    15 | 0.123 |\n"
        "| overall | b/c   |   540 |       |\n"
    )


def test_csv_keeps_every_digit() -> None:
    lines = list(csv.reader(csv_table(("of", "label"), ROWS).splitlines()))
    assert lines == [
        ["of", "label", "pairs", "MMA@1"],
        ["overall", "a", "15", "0.12345"],
        ["overall", "b|c", "540", ""],
    ]


def test_no_rows() -> None:
    assert markdown_table(("of",), {"pairs": "pairs"}, []) == "| of |\n| -- |\n"
    assert csv_table(("of",), []) == "of\n"
