"""Names of images in a COLMAP text model, which COLMAP cuts at their first space."""

from __future__ import annotations

from pathlib import Path

from r2d2_kapture.io.kapture.dataset import read_lines

NAME_FIELD = 9
"""Fields before the name in an image's first line of two."""


def names_with_spaces(path: Path) -> dict[int, str]:
    """Names with spaces by image id; other spaces COLMAP reads.

    Args:
        path: of images.txt.

    Raises:
        DatasetError: not UTF-8 text.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    fields = (line.rstrip("\r ").split(" ", NAME_FIELD) for line in lines[::2])
    return {
        int(found[0]): found[NAME_FIELD]
        for found in fields
        if len(found) > NAME_FIELD and " " in found[NAME_FIELD] and found[0].isdecimal()
    }
