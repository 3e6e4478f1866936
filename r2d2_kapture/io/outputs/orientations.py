"""The turns that images of a folder of features were seen in: ``orientations.json``.

Written before features are, so that a run that was stopped goes on with the same turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.rotations import TURNS
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic

ORIENTATIONS_NAME = "orientations.json"
FORMAT = "r2d2_kapture orientations 1"


@dataclass(frozen=True, kw_only=True)
class RecordedTurn:
    """The turn of an image, and the file that it was found for.

    Attributes:
        turn: degrees clockwise by which the network saw the stored image turned.
        sha256: of the content of the image file.
    """

    turn: Turn
    sha256: str


def read_turns(folder: Path) -> dict[str, RecordedTurn]:
    """The recorded turns by image name; empty without a record.

    Raises:
        FeatureFormatError: the file is not such a record.
    """
    path = folder / ORIENTATIONS_NAME
    if not path.is_file():
        return {}
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError
        return {
            str(name): RecordedTurn(
                turn=TURNS[TURNS.index(item["turn"])], sha256=str(item["sha256"])
            )
            for name, item in content["images"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FeatureFormatError(
            f"{path}: found no record of orientations, expected the one written by an "
            "extraction with --rotations; redo with --force"
        ) from error


def write_turns(folder: Path, turns: Mapping[str, RecordedTurn]) -> None:
    """Record the turns of images.

    Raises:
        OutputError: the file system refused.
    """
    images = {
        name: {"turn": item.turn, "sha256": item.sha256}
        for name, item in sorted(turns.items())
    }
    content = {"format": FORMAT, "images": images}
    write_json_atomic(folder / ORIENTATIONS_NAME, content)


def merge_turns(whole: Path, part: Path) -> None:
    """Add the turns of a part of the images to the record of all.

    Raises:
        FeatureFormatError: one of the files is no such record.
        OutputError: the file system refused.
    """
    write_turns(whole.parent, read_turns(whole.parent) | read_turns(part.parent))
