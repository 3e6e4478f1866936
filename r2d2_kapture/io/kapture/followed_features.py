"""Features that results were made from, by image: ``features.json`` next to them.

Results of an image whose features are written anew have to be made anew too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic

STATES_NAME = "features.json"


def read_states(folder: Path) -> dict[str, str] | None:
    """The state of each image's features when results were made; None if not noted."""
    return read_json(folder / STATES_NAME) or None


@contextmanager
def following(
    folder: Path, states: Mapping[str, str], *, older: str | None = None
) -> Iterator[frozenset[str]]:
    """Give the images whose features are not those that results were made of.

    The block removes these results. A run killed in it finds the same images again.

    Args:
        folder: of the results.
        states: of the features of images now, any text, see feature_states.
        older: the state of all images in a folder of a version that noted none.

    Raises:
        OutputError: the file system refused.
    """
    noted = read_states(folder)
    known = noted or {}
    default = older if noted is None else None
    changed = {n for n, state in states.items() if known.get(n, default) != state}
    yield frozenset(changed)
    if changed or noted is None:
        write_json_atomic(folder / STATES_NAME, {**known, **states})
