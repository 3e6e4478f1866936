"""Lists of image pairs: written as kapture has them, read from hloc and COLMAP too.

The order of the two names is kept: localization takes the first as the query. For
everything else (a, b) and (b, a) are one pair.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.io.names import not_utf8, shown
from r2d2_kapture.io.outputs.atomic import write_bytes_atomic

Reading = tuple[str, str, str]
"""Two names and the text of a score."""
HEADER = "# kapture format: 1.1\n# query_image, map_image, score\n"


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """Two images to match.

    Attributes:
        image1, image2: their names; image 1 is the query where there is one.
        score: how alike they seem, higher is better.
    """

    image1: str
    image2: str
    score: float = 1.0

    @property
    def names(self) -> tuple[str, str]:
        """The names as they are ordered here."""
        return self.image1, self.image2


def sorted_pair(image1: str, image2: str) -> tuple[str, str]:
    """The names of a pair in order, which is the same for (a, b) and (b, a)."""
    return (image1, image2) if image1 <= image2 else (image2, image1)


def read_pairs(path: Path, known: Container[str] = ()) -> list[ImagePair]:
    """Read a list of pairs; a pair that occurs twice counts once, as it came first.

    A line is ``image1, image2, score`` or ``image1, image2`` as in kapture, or
    ``image1 image2`` as hloc and COLMAP have it, with tabs or spaces, where a score may
    follow too. Without a score it is 1.

    Lines that are not UTF-8 are left out with a warning, unless all are: no features
    can be kept by such names, and the others go on.

    Args:
        path: in UTF-8, or UTF-16 with a byte-order mark.
        known: names of images, which decide where a name with spaces ends.

    Raises:
        DatasetError: unreadable, a line of no pair or of several, a score that is no
            number, an unsafe name, or an image paired with itself; with the number of
            the line.
    """
    if not path.exists() or path.is_dir():  # a pipe is read too
        raise DatasetError(f"{path}: found no such file, expected a list of pairs")
    pairs, broken = [], []
    lines = read_list_lines(path, "a list of pairs of images")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = not_utf8(line)
        if found is None:
            pairs.append(_parse_line(line, Path(f"{path}: line {number}"), known))
        else:
            broken.append(f"line {number} {found}: '{shown(line.strip())[:80]}'")
    if broken:
        text = f"{path}: {broken[0]}; rename the image, or write the list in UTF-8"
        if not pairs:
            raise DatasetError(text)
        logging.warning("%s; such pairs left out: %d", text, len(broken))
    return unique_pairs(pairs)


def write_pairs(path: Path, pairs: Iterable[ImagePair]) -> None:
    """Write a list of pairs, whole or not at all.

    Raises:
        DatasetError: a name holds a comma or begins with #, which the format cannot
            hold.
        OutputError: the file system refused.
    """
    write_bytes_atomic(path, pairs_to_bytes(path, pairs))


def pairs_to_bytes(path: Path, pairs: Iterable[ImagePair]) -> bytes:
    """What write_pairs writes; ``path`` is only named where it raises DatasetError."""
    lines = []
    for pair in pairs:
        for name in pair.names:
            if "," in name or name.startswith("#"):
                found = "a comma" if "," in name else "# in front"
                raise DatasetError(
                    f"{path}: image '{name}': found {found}, which kapture's lists "
                    "cannot hold; rename the image"
                )
        lines.append(f"{pair.image1}, {pair.image2}, {pair.score:.6g}\n")
    # bytes of file names that are not UTF-8 become escapes
    return (HEADER + "".join(lines)).encode("utf-8", "backslashreplace")


def sorted_pairs(
    pairs: Iterable[tuple[str, str]], known: Iterable[str]
) -> list[tuple[str, str]]:
    """The pairs in order of names, the names of each in ascending order.

    Args:
        pairs: image names; (a, b) and (b, a) are one pair.
        known: images that there are.

    Raises:
        DatasetError: a pair of an unknown image, or of an image with itself.
    """
    names = frozenset(known)
    unique = set()
    for first, second in pairs:
        for name in (first, second):
            if name not in names:
                raise DatasetError(
                    f"pair '{first}', '{second}': found no image '{name}' in the "
                    "dataset; correct the list of pairs"
                )
        if first == second:
            raise DatasetError(
                f"pair '{first}', '{second}': an image cannot pair with itself; "
                "correct the list of pairs"
            )
        unique.add(sorted_pair(first, second))
    return sorted(unique)


def unique_pairs(pairs: Iterable[ImagePair]) -> list[ImagePair]:
    """Each unordered pair once, as it came first."""
    unique: dict[tuple[str, str], ImagePair] = {}
    for pair in pairs:
        unique.setdefault(sorted_pair(*pair.names), pair)
    return list(unique.values())


def _parse_line(line: str, place: Path, known: Container[str]) -> ImagePair:
    readings = _readings(line)
    if len(readings) != 1 or (len(line.split()) > 2 and not set(",\t") & set(line)):
        candidates = [*readings, *_cuts(line)]
        named = [one for one in candidates if one[0] in known and one[1] in known]
        readings = list(dict.fromkeys(named)) or readings
    if len(readings) != 1:
        found = "could be several pairs" if readings else "is not a pair of images"
        raise DatasetError(
            f"{place}: '{shown(line.strip())[:80]}' {found}, expected two image names "
            "and a space between them, or 'name, name, score' where names hold spaces"
        )
    image1, image2, text = readings[0]
    try:
        score = float(text)
    except ValueError as error:
        raise DatasetError(f"{place}: score '{text[:40]}', no number") from error
    if math.isnan(score):
        raise DatasetError(f"{place}: score NaN, expected a number")
    for name in (image1, image2):
        check_relative_name(name, place)
    if image1 == image2:
        raise DatasetError(f"{place}: pairs '{image1}' with itself; remove the line")
    return ImagePair(image1=image1, image2=image2, score=score)


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
    return _of_fields(words) if len(words) == 2 or _is_number(words[-1]) else []


def _of_fields(fields: list[str]) -> list[Reading]:
    names = [field.strip() for field in fields]
    if len(names) == 2:
        names.append("1")
    return [(names[0], names[1], names[2])] if len(names) == 3 else []


def _cuts(line: str) -> Iterator[Reading]:
    """All ways to cut a line at spaces into two names, with a score or without."""
    head, _, last = line.strip().rpartition(" ")
    whole = [(line.strip(), "1")] + ([(head, last)] if _is_number(last) else [])
    for text, score in whole:
        for gap in re.finditer(r"\s+", text):
            yield text[: gap.start()], text[gap.end() :], score


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
