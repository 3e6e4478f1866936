"""Lists written by users and other tools: one entry per line, in any Unicode encoding.

Lines end at CR and LF alone, as in kapture. Names of files that are not UTF-8 keep
their bytes, as Python has the names of files (PEP 383).
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from r2d2_kapture.errors import DatasetError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CAMERA = re.compile(r"\s+[A-Z][A-Z_]+(\s+[-+.\deE]+)+\s*$")


def names_in(line: str) -> tuple[str, ...]:
    """What a line may name, likeliest first: all of it, or what stands before a camera.

    A camera follows each name in Aachen's lists of queries: its model, size and
    parameters.
    """
    return tuple(dict.fromkeys((line, line.strip(), CAMERA.sub("", line).strip())))


def read_list_lines(path: Path, expected: str) -> list[str]:
    """Lines of a list, without their ends; UTF-8, or UTF-16 with a byte-order mark.

    Args:
        path: the file.
        expected: what it is a list of, for the message.

    Raises:
        DatasetError: missing, unreadable, or no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}), expected {expected}"
        ) from error
    encoding = next(
        (name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)),
        "utf-8",
    )
    errors = "strict" if encoding == "utf-16" else "surrogateescape"
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not UTF-8 text, expected {expected}; convert it"
        ) from error
    if "\0" in text:
        raise DatasetError(
            f"{path}: not UTF-8 text, found NUL, expected {expected}; convert it"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
