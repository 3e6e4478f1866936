"""What a line of text can hold, and how what it cannot hold is shown."""

from __future__ import annotations

import pytest

from r2d2_kapture.io.names import broken_by, broken_in_table_by, shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("\u202fa.jpg", "holds the character U+202F at its start"),
        ("a\u3000", "holds the character U+3000 at its end"),
        ("a, b.jpg", "holds a comma"),
        ("a\u2029b.jpg", "holds the character U+2029"),
        ("a\ud800b.jpg", "holds the character U+D800"),
        ("a\u202f\u200d\u200f\ufeff\U0001fae9.jpg", None),
    ],
)
def test_what_keeps_a_name_out_of_a_table(name: str, words: str | None) -> None:
    assert broken_in_table_by(name) == words


def test_a_line_holds_commas_and_spaces_around() -> None:
    assert broken_by(" a, b.jpg ") is None


def test_what_a_terminal_must_not_get_is_escaped() -> None:
    assert shown("caf\udce9 \x1b[2J\x9b\u2028\ud800.jpg") == (
        r"caf\xe9 \x1b[2J\x9b\u2028\ud800.jpg"
    )
    assert shown("Caf\u00e9 \u202f\U0001f468\u200d\U0001f469") == (
        "Caf\u00e9 \u202f\U0001f468\u200d\U0001f469"
    )
