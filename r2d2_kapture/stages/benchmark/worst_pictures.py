"""Pictures of the worst pairs of an evaluation, and which pairs they show."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.types import Failure

RECORD_NAME = "worst.json"
"""Lists what each picture shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture to draw.

    Attributes:
        title: of the picture.
        state: changes with what it shows.
        draw: writes it to a path; may raise ImageError and FeatureFormatError.
    """

    title: str
    state: str
    draw: Callable[[Path], None]


def update_pictures(folder: Path, pictures: Sequence[Picture]) -> list[Failure]:
    """Bring ``worst_1.png`` and so on up to date: draw what changed, remove the rest.

    Args:
        folder: that holds them.
        pictures: to be there, the worst first.

    Returns:
        Which could not be drawn, and why.
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
    # a run that is killed while it draws must not leave a record of what was there
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
    """Remove the pictures but those named, and the record of what they show."""
    (folder / RECORD_NAME).unlink(missing_ok=True)
    for path in folder.glob("worst_*.png"):
        if path.name not in but:
            path.unlink()


def _read(record: Path) -> dict[str, str]:
    """What the pictures show; nothing where no record can be read."""
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
