"""Lists of image pairs: written as kapture has them, read from hloc and COLMAP too.

The order of the two names is kept: localization takes the first as the query. For
everything else (a, b) and (b, a) are one pair.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import numpy as np

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.kapture.pair_lines import parse_pair
from r2d2_kapture.io.kapture.pair_list import (
    BLOCK_PAIRS,
    ImagePair,
    PairCollector,
    PairList,
    sorted_pair,
)
from r2d2_kapture.io.lists import list_lines
from r2d2_kapture.io.names import not_utf8, shown
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.io.outputs.image_records import sha256_of

__all__ = ["ImagePair", "PairList", "sorted_pair"]
HEADER = "# kapture format: 1.1\n# query_image, map_image, score\n"


def read_pairs(path: Path, known: Container[str] = ()) -> PairList:
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
    collected, broken = PairCollector(), []
    lines = list_lines(path, "a list of pairs of images")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = not_utf8(line)
        if found is None:
            _collect(line, f"{path}: line {number}", known, collected)
        else:
            broken.append(f"line {number} {found}: '{shown(line.strip())[:80]}'")
    if broken:
        text = f"{path}: {broken[0]}; rename the image, or write the list in UTF-8"
        if not collected.scores:
            raise DatasetError(text)
        logging.warning("%s; such pairs left out: %d", text, len(broken))
    return collected.pairs().unique()


def write_pairs(path: Path, pairs: Iterable[ImagePair]) -> None:
    """Write a list of pairs, whole or not at all; one that is the same stays.

    Raises:
        DatasetError: a name holds a comma or begins with #, which the format cannot
            hold.
        OutputError: the file system refused.
    """
    listed = PairList.of(pairs)
    if path.is_file() and sha256_of(path) == pairs_sha256(path, listed):
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(pair_blocks(path, listed))


def pairs_sha256(path: Path, pairs: Iterable[ImagePair]) -> str:
    """Digest of what write_pairs writes; ``path`` is for errors alone."""
    digest = hashlib.sha256()
    for block in pair_blocks(path, pairs):
        digest.update(block)
    return digest.hexdigest()


def pair_blocks(path: Path, pairs: Iterable[ImagePair]) -> Iterator[bytes]:
    """What write_pairs writes; ``path`` is only named where it raises DatasetError."""
    listed = PairList.of(pairs)
    names = listed.names
    broken = [name for name in names if "," in name or name.startswith("#")]
    for row in np.flatnonzero(listed.holding(broken))[:1].tolist():
        name = next(name for name in listed[row].names if name in broken)
        found = "a comma" if "," in name else "# in front"
        raise DatasetError(
            f"{path}: image '{name}': found {found}, which kapture's lists "
            "cannot hold; rename the image"
        )
    yield HEADER.encode()
    for start in range(0, len(listed), BLOCK_PAIRS):
        text = "".join(
            f"{names[i]}, {names[j]}, {score:.6g}\n"
            for i, j, score in listed[start : start + BLOCK_PAIRS].rows()
        )
        # bytes of file names that are not UTF-8 become escapes
        yield text.encode("utf-8", "backslashreplace")


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


def unique_pairs(pairs: Iterable[ImagePair]) -> PairList:
    """Each unordered pair once, as it came first."""
    return PairList.of(pairs).unique()


def _collect(
    line: str, place: str, known: Container[str], collected: PairCollector
) -> None:
    """Parse a line at some place of a list, and add its pair."""
    try:
        *names, score = parse_pair(line, known)
    except DatasetError as error:
        raise DatasetError(f"{place}: {error}") from error
    for name in names:
        if name not in collected.indices:
            check_relative_name(name, Path(place))
    first, second = map(collected.index, names)
    if first == second:
        raise DatasetError(f"{place}: pairs '{names[0]}' with itself; remove the line")
    collected.add(first, second, score)
