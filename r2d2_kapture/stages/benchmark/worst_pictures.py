"""Pictures of the worst pairs of an evaluation, with a record of these pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.types import Failure

RECORD_NAME = "worst.json"
"""File that lists what each picture shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture to draw.

    Attributes:
        title: of the picture.
        state: digest of its inputs.
        draw: writes it to a path; may raise ImageError or FeatureFormatError.
    """

    title: str
    state: str
    draw: Callable[[Path], None]


def update_pictures(folder: Path, pictures: Sequence[Picture]) -> list[Failure]:
    """Update ``worst_1.png`` and so on: draw what changed, remove the others.

    Args:
        folder: of the pictures.
        pictures: the worst first.

    Returns:
        Pictures that could not be drawn, with the reason.
    """
    shown = _read(folder / RECORD_NAME)
    wanted = {
        f"worst_{rank}.png": picture for rank, picture in enumerate(pictures, start=1)
    }
    states = {name: f"{item.title}, {item.state}" for name, item in wanted.items()}
    kept = {
        name: state
        for name, state in states.items()
        if shown.get(name) == state and (folder / name).is_file()
    }
    if kept == states == shown:
        return []
    # a run killed while drawing must not leave an outdated record
    remove_pictures(folder, but=kept)
    write_json_atomic(folder / RECORD_NAME, kept)
    failed = []
    for name in [name for name in wanted if name not in kept]:
        try:
            wanted[name].draw(folder / name)
        except (FeatureFormatError, ImageError) as error:
            failed.append(Failure(name=str(folder / name), reason=str(error)))
            continue
        kept[name] = states[name]
    write_json_atomic(folder / RECORD_NAME, kept)
    return failed


def remove_pictures(folder: Path, but: Collection[str] = ()) -> None:
    """Remove the pictures except those named, and their record."""
    (folder / RECORD_NAME).unlink(missing_ok=True)
    for path in folder.glob("worst_*.png"):
        if path.name not in but:
            path.unlink()


def _read(record: Path) -> dict[str, str]:
    """What the pictures show; empty if the record cannot be read."""
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
