"""Lists written by users and other tools: one entry per line, in any Unicode encoding.

Lines end at CR and LF alone, as in kapture. Names of files that are not UTF-8 keep
their bytes, as Python has the names of files (PEP 383).
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path

from r2d2_kapture.errors import DatasetError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BLOCK_CHARACTERS = 1 << 20
"""Characters of a list read at a time."""
CAMERA = re.compile(r"\s+[A-Z][A-Z_]+(\s+[-+.\deE]+)+\s*$")


def names_in(line: str) -> tuple[str, ...]:
    """What a line may name, likeliest first: all of it, or what stands before a camera.

    A camera follows each name in Aachen's lists of queries: its model, size and
    parameters.
    """
    return tuple(dict.fromkeys((line, line.strip(), CAMERA.sub("", line).strip())))


def read_list_lines(path: Path, expected: str) -> list[str]:
    """Lines of a list, without their ends; see list_lines."""
    return list(list_lines(path, expected))


def list_lines(path: Path, expected: str) -> Iterator[str]:
    """Lines of a list that need not fit into memory, without their ends.

    Args:
        path: the file, in UTF-8, or UTF-16 with a byte-order mark.
        expected: what it is a list of, for the message.

    Raises:
        DatasetError: missing, unreadable, or no text.
    """
    end = "\n"
    try:
        with path.open("rb") as file:
            head = file.peek(4)
            encoding = next(
                (e for mark, e in BYTE_ORDER_MARKS.items() if head.startswith(mark)),
                "utf-8",
            )
            errors = "strict" if encoding == "utf-16" else "surrogateescape"
            text = io.TextIOWrapper(file, encoding, errors)
            while lines := text.readlines(BLOCK_CHARACTERS):
                if any("\0" in line for line in lines):
                    raise DatasetError(
                        f"{path}: not UTF-8 text, found NUL, expected {expected}; "
                        "convert it"
                    )
                end = lines[-1][-1]
                yield from (line.removesuffix("\n") for line in lines)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not UTF-8 text, expected {expected}; convert it"
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}), expected {expected}"
        ) from error
    if end == "\n":
        yield ""


def is_number(text: str) -> bool:
    """Whether a field of a line is one."""
    try:
        float(text)
    except ValueError:
        return False
    return True
