"""Images and pairs that several folders hold: the first folder counts, which is said.

Where features carry no record of their image, two images of one name look like this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.names import shown
from r2d2_kapture.types import some_names

Place = tuple[Path, int, int]
"""File, offset and bytes of rows."""


def hidden_features(table: FeatureTable) -> tuple[str, ...]:
    """What a report says of images with other rows in a later folder of a table.

    Rows that are the same in all folders, such as those of a copy, are no matter.
    """
    table = table.of_type(table.type_name)
    if len(table.folders) < 2:
        return ()
    times = Counter(name for folder in table.folders for name in folder.image_names)
    hidden = [
        name
        for name in sorted(times)
        if times[name] > 1
        and _differ(filter(None, (f.location(name) for f in table.folders)))
    ]
    if not hidden:
        return ()
    kind = table.kind.replace("_", " ")
    return (
        f"{len(hidden)} images have different {kind} in several folders: "
        f"{some_names(map(shown, hidden))}; those of the first folder are used: "
        f"{_places(folder.path for folder in table.folders)}; if they are two images "
        "of one name, rename one",
    )


def hidden_matches(table: MatchTable) -> tuple[str, ...]:
    """What a report says of pairs with other matches in a later folder of a table."""
    if len(table.folders) < 2:
        return ()
    hidden = [pair for pair in table.pairs if _differ(table.places(pair))]
    if not hidden:
        return ()
    return (
        f"{len(hidden)} pairs have different matches in several folders: "
        f"{some_names(', '.join(map(shown, pair)) for pair in hidden)}; those of the "
        f"first folder are used: {_places(folder for folder, _ in table.folders)}",
    )


def _differ(places: Iterable[Place]) -> bool:
    found = list(places)
    sizes = {size for _, _, size in found}
    return len(sizes) > 1 or len({_bytes(place) for place in found}) > 1


def _bytes(place: Place) -> bytes:
    path, offset, size = place
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError:  # whoever needs the rows reports it
        return b""


def _places(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))
