"""The image files of a folder: sizes, and what EXIF says of camera and place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.colmap.exif import read_exif
from r2d2_kapture.io.images.decoding import image_orientation, image_size
from r2d2_kapture.io.images.gps import read_exif_position
from r2d2_kapture.io.kapture.dataset import check_table_name
from r2d2_kapture.io.kapture.gnss import GnssPosition
from r2d2_kapture.io.names import shown
from r2d2_kapture.types import Failure


@dataclass(frozen=True, kw_only=True)
class Shot:
    """An image file.

    Attributes:
        name: below the folder.
        stamp: size in bytes and time of change of the file.
        size: (W, H) in pixels as stored.
        focal_length: in pixels from EXIF, or None.
        model: maker, model, focal length and size in one, or None.
        orientation: of the EXIF tag, 1 to 8; never applied.
        position: where it was taken, by EXIF; None if unknown.
        position_fault: what of the position is broken in EXIF; None if nothing is.
    """

    name: str
    stamp: tuple[int, int]
    size: tuple[int, int]
    focal_length: float | None
    model: str | None
    orientation: int
    position: GnssPosition | None = None
    position_fault: str | None = None


def known_shots(state: Mapping[str, Any]) -> dict[tuple[str, int, int], Shot]:
    """What an earlier run found, by name and stamp: COLMAP decodes a whole image.

    Args:
        state: that it left; one without positions is read again.
    """
    try:
        shots = [
            Shot(
                name=str(item["name"]),
                stamp=(int(item["stamp"][0]), int(item["stamp"][1])),
                size=(int(item["size"][0]), int(item["size"][1])),
                focal_length=item["focal_length"],
                model=item["model"],
                orientation=int(item["orientation"]),
                position=item["position"] and GnssPosition(**item["position"]),
                position_fault=item["position_fault"],
            )
            for item in state.get("files", ())
        ]
    except (ValueError, TypeError, KeyError, IndexError):
        return {}
    return {(shot.name, *shot.stamp): shot for shot in shots}


def read_shots(
    images: Path,
    paths: Sequence[Path],
    known: Mapping[tuple[str, int, int], Shot],
    query: str | None,
) -> tuple[list[Shot], list[Failure]]:
    """The files that can be used, in order of names, and why others cannot.

    Args:
        images: the folder.
        paths: of the files.
        known: of an earlier run.
        query: name of photographs to localize, whose focal lengths are not read.
    """
    shots, failed = [], []
    for path in paths:
        name = (Path(query or "") / path.relative_to(images)).as_posix()
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns
        try:
            earlier = known.get((name, *stamp))
            shots.append(earlier or _read_shot(path, name, stamp, query is None))
        except (ImageError, DatasetError) as error:
            failed.append(Failure(name=shown(name), reason=shown(str(error))))
    return sorted(shots, key=lambda shot: shot.name), failed


def _read_shot(path: Path, name: str, stamp: tuple[int, int], exif: bool) -> Shot:
    check_table_name(name, path)
    if name.startswith("#"):
        raise DatasetError(
            f"{path}: name '{name}' starts with #, which kapture's lists do not "
            "support; rename the image"
        )
    size = image_size(path)
    place = read_exif_position(path)
    focal_length, model = read_exif(path, size) if exif else (None, None)
    return Shot(
        name=name,
        stamp=stamp,
        size=size,
        focal_length=focal_length,
        model=model,
        orientation=image_orientation(path),
        position=place.position,
        position_fault=place.fault,
    )
