"""Lines of lists of pairs, as kapture, hloc and COLMAP write them."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.lists import is_number
from r2d2_kapture.io.names import shown

Reading = tuple[str, str, str]
"""Two names and the text of a score."""


def parse_pair(line: str, known: Container[str] = ()) -> tuple[str, str, float]:
    """Two names and the score of a line, 1 without one.

    Args:
        line: see read_pairs.
        known: names of images, which decide where a name with spaces ends.

    Raises:
        DatasetError: no pair, or several, or a score that is no number; without the
            place of the line.
    """
    fields = line.split(",")
    if len(fields) == 3:  # kapture's, and nothing else
        image1, image2, text = map(str.strip, fields)
    else:
        image1, image2, text = _choose(line, known)
    try:
        score = float(text)
    except ValueError as error:
        raise DatasetError(f"score '{text[:40]}', no number") from error
    if math.isnan(score):
        raise DatasetError("score NaN, expected a number")
    return image1, image2, score


def _choose(line: str, known: Container[str]) -> Reading:
    readings = _readings(line)
    if len(readings) != 1 or (len(line.split()) > 2 and not set(",\t") & set(line)):
        candidates = [*readings, *_cuts(line)]
        named = [one for one in candidates if one[0] in known and one[1] in known]
        readings = list(dict.fromkeys(named)) or readings
    if len(readings) != 1:
        found = "could be several pairs" if readings else "is not a pair of images"
        raise DatasetError(
            f"'{shown(line.strip())[:80]}' {found}, expected two image names "
            "and a space between them, or 'name, name, score' where names hold spaces"
        )
    return readings[0]


def _readings(line: str) -> list[Reading]:
    """The pairs that a line may hold, split at commas, tabs or spaces."""
    words = line.split()
    if "," in line:
        fields = line.split(",")
        # COLMAP's lists hold names with commas
        parts = words if len(words) == 2 else line.strip().split("\t")
        inside = len(parts) == len(fields) == 2 and not (
            parts[0].endswith(",") or parts[1].startswith(",")
        )
        return _of_fields(fields) + (_of_fields(parts) if inside else [])
    if "\t" in line:
        return _of_fields(line.strip().split("\t"))
    return _of_fields(words) if len(words) == 2 or is_number(words[-1]) else []


def _of_fields(fields: list[str]) -> list[Reading]:
    names = [field.strip() for field in fields]
    if len(names) == 2:
        names.append("1")
    return [(names[0], names[1], names[2])] if len(names) == 3 else []


def _cuts(line: str) -> Iterator[Reading]:
    """All ways to cut a line at spaces into two names, with a score or without."""
    head, _, last = line.strip().rpartition(" ")
    whole = [(line.strip(), "1")] + ([(head, last)] if is_number(last) else [])
    for text, score in whole:
        for gap in re.finditer(r"\s+", text):
            yield text[: gap.start()], text[gap.end() :], score
