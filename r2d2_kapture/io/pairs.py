"""Lists of image pairs in kapture's format: ``image1, image2, score`` a line.

The order of the two names is kept: localization takes the first as the query. For
everything else (a, b) and (b, a) are one pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.atomic import write_bytes_atomic
from r2d2_kapture.io.kapture import check_relative_name, read_lines

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

    @property
    def key(self) -> frozenset[str]:
        """The same for (a, b) and (b, a)."""
        return frozenset(self.names)


def read_pairs(path: Path) -> list[ImagePair]:
    """Read a list of pairs; a pair that occurs twice counts once, as it came first.

    Raises:
        DatasetError: unreadable, a line of other than 3 fields, a score that is no
            number, an unsafe name, or an image paired with itself.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: found no such file, expected a list of pairs")
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip() and not line.startswith("#"):
            pairs.append(_parse_line(line, f"{path}: line {number}"))
    for pair in pairs:
        for name in pair.names:
            check_relative_name(name, path)
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


def unique_pairs(pairs: Iterable[ImagePair]) -> list[ImagePair]:
    """Each unordered pair once, as it came first."""
    unique: dict[frozenset[str], ImagePair] = {}
    for pair in pairs:
        unique.setdefault(pair.key, pair)
    return list(unique.values())


def _parse_line(line: str, place: str) -> ImagePair:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 3:
        raise DatasetError(
            f"{place}: found {len(fields)} fields in '{line.strip()[:80]}', expected "
            "image1, image2, score"
        )
    try:
        score = float(fields[2])
    except ValueError as error:
        raise DatasetError(f"{place}: score '{fields[2][:40]}', no number") from error
    if math.isnan(score):
        raise DatasetError(f"{place}: score NaN, expected a number")
    if fields[0] == fields[1]:
        raise DatasetError(f"{place}: pairs '{fields[0]}' with itself; remove the line")
    return ImagePair(image1=fields[0], image2=fields[1], score=score)
