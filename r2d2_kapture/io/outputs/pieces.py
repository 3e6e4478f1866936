"""Slices of an output, in a hidden folder beside it until they are put together.

``.NAME.slices`` beside the output ``NAME`` holds

    manifest.json  what the slices are made with
    2-of-8         a folder in which slice 2/8 writes as an unsliced run would
    2-of-8.json    its report, which is there once it is finished
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.config.slices import ALL, Slice
from r2d2_kapture.errors import DatasetError

SUFFIX = ".slices"


def slices_folder(output: Path) -> Path:
    """Where the slices of an output are; a link is the user's choice of a disk."""
    path = Path(os.path.realpath(output))
    return path.parent / f".{path.name[:200]}{SUFFIX}"


def outputs_in_pieces(folder: Path) -> list[Path]:
    """The outputs in a folder of which there are slices, in order of names."""
    return sorted(
        folder / path.name[1 : -len(SUFFIX)] for path in folder.glob(f".*{SUFFIX}")
    )


def piece(folder: Path, part: Slice) -> Path:
    """The folder in which a slice writes."""
    return folder / f"{part.number}-of-{part.count}"


def report_of(folder: Path, part: Slice) -> Path:
    """The report of a finished slice."""
    return folder / f"{part.number}-of-{part.count}.json"


def slices_in(folder: Path, suffix: str = "") -> list[Slice]:
    """The slices that have a folder, or with ``.json`` a report, in order."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = [
        re.fullmatch(rf"(\d+)-of-(\d+){re.escape(suffix)}", name) for name in names
    ]
    return sorted(Slice(number=int(m[1]), count=int(m[2])) for m in found if m)


def all_slices(count: int) -> list[Slice]:
    """The slices of a number of them."""
    return [Slice(number=number, count=count) for number in range(1, count + 1)]


def refuse_pieces(output: Path) -> None:
    """Refuse an output of which there are slices that are not put together.

    Raises:
        DatasetError: naming those that are missing.
    """
    folder = slices_folder(output)
    begun = slices_in(folder)
    if not begun:
        return
    finished = set(slices_in(folder, ".json"))
    missing = [part for part in all_slices(begun[0].count) if part not in finished]
    raise DatasetError(
        f"{output}: found slices of it in {folder}, of which "
        + (
            f"{listed(missing)} missing; run the same command with these --slice, then"
            if missing
            else "none is missing; run the same command"
        )
        + f" with --slice {ALL}; or remove that folder"
    )


def listed(parts: Sequence[Slice]) -> str:
    """Up to three slices, the number of the others, and the verb of a sentence."""
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    names = ", ".join(map(str, parts[:3]))
    return f"{names}{more} {'is' if len(parts) == 1 else 'are'}"
