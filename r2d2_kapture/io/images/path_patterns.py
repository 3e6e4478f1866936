"""Glob patterns on paths below a folder; ``**`` is any number of folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

ANY_DEPTH = "**"


def path_matches(
    parts: Sequence[str], pattern: Sequence[str], *, hidden: bool = False
) -> bool:
    """Whether the parts of a path fit those of a pattern.

    Args:
        parts: of the path.
        pattern: of ``*``, ``?`` and ``[...]`` within a part, or ``**``.
        hidden: whether wildcards fit names that begin with a dot.
    """
    if not pattern:
        return not parts
    if pattern[0] == ANY_DEPTH:
        return path_matches(parts, pattern[1:], hidden=hidden) or (
            bool(parts)
            and (hidden or not parts[0].startswith("."))
            and path_matches(parts[1:], pattern, hidden=hidden)
        )
    if not parts or not fnmatchcase(parts[0], pattern[0]):
        return False
    if parts[0].startswith(".") and not hidden and not pattern[0].startswith("."):
        return False
    return path_matches(parts[1:], pattern[1:], hidden=hidden)


def is_excluded(path: Path, pattern: str) -> bool:
    """Whether a path, or a folder that it is in, fits a pattern of ``--exclude``.

    A pattern without a slash fits at any depth. Upper and lower case are one in what
    follows the last dot, and so are all Unicode forms of a letter with accents.

    Args:
        path: relative to the folder that is searched.
        pattern: relative to it as well.
    """
    wanted = [_folded(part) for part in Path(pattern).parts]
    if len(wanted) == 1:
        wanted.insert(0, ANY_DEPTH)
    parts = [_folded(part) for part in path.parts]
    return any(
        path_matches(parts[:count], wanted, hidden=True)
        for count in range(1, len(parts) + 1)
    )


def _folded(part: str) -> str:
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", part))
    return stem + suffix.lower()
