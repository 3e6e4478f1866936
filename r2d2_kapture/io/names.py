"""Names of images and files: what tables and lists can hold, and how to show them.

Names are taken as the file system has them: any space, joined emoji, combining or
right-to-left mark. Only what breaks the line that a name stands in is refused.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable

from r2d2_kapture.types import some_names

UNHOLDABLE = ("Cc", "Zl", "Zp", "Cs")
"""Unicode's control characters, separators of lines and paragraphs, and surrogates."""


def shown(name: str) -> str:
    """A printable name: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(map(_shown_character, name))


def _shown_character(character: str) -> str:
    byte = _byte(character)
    if byte is not None:
        return f"\\x{byte:02x}"
    if unicodedata.category(character) in UNHOLDABLE:
        return character.encode("unicode_escape").decode("ascii")
    return character


def _byte(character: str) -> int | None:
    """The byte that Python puts into a name where it is not UTF-8 (PEP 383)."""
    code = ord(character) - 0xDC00
    return code if 0x80 <= code <= 0xFF else None


def broken_by(name: str) -> str | None:
    """What keeps a name out of every text file; None where nothing does.

    Returns:
        Words to stand after the name.
    """
    if name.isprintable():  # nearly all are, and that is quickly seen
        return None
    for character in name:
        if _byte(character) is not None:
            return not_utf8(character)
        if unicodedata.category(character) in UNHOLDABLE:
            return f"holds the character U+{ord(character):04X}"
    return None


def not_utf8(name: str) -> str | None:
    """Words on the first byte of a name that is not UTF-8; None where all is."""
    if name.isascii():
        return None
    found = next((byte for byte in map(_byte, name) if byte is not None), None)
    return (
        None if found is None else f"holds the byte 0x{found:02X}, which is not UTF-8"
    )


def broken_in_table_by(name: str) -> str | None:
    """What keeps a name out of kapture's tables, which strip their fields.

    Returns:
        Words to stand after the name; None where nothing does.
    """
    if "," in name:
        return "holds a comma"
    for place, character in (("start", name[:1]), ("end", name[-1:])):
        if character.isspace():
            return f"holds the character U+{ord(character):04X} at its {place}"
    return broken_by(name)


def equal_in_another_form(name: str, names: Iterable[str]) -> str | None:
    """The one of names that looks the same: macOS decomposes letters with accents."""
    form = unicodedata.normalize("NFC", name)
    return next((n for n in names if unicodedata.normalize("NFC", n) == form), None)


def nearest_name(name: str, names: Collection[str]) -> str:
    """Words on a name that is not among others: the nearest one, or a few of them."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    ending = [other for other in names if other.endswith("/" + name)]
    if ending or near:
        return f"found no image '{name}'; did you mean '{(ending or near)[0]}'?"
    if not names:
        return f"found no image '{name}', nor any other"
    few = some_names(sorted(names))
    return f"found no image '{name}'; it holds {few}"
