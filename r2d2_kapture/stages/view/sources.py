"""Image folders of stored features, matches and maps."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.names import nearest_name
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.colmap import MARK, work_folder

REPORT_NAME = "pipeline_report.json"
MAX_NAME = 80
"""Number of last characters of an image name in the name of a picture."""
RECORDS = Path("sensors") / "records_data"


def image_folder(images: Path | None, beside: Path) -> Path:
    """Find the folder that image names are relative to.

    Args:
        images: as given by the user.
        beside: a map or database; the records of the pipeline or kapture_r2d2_colmap
            next to it give the folder.

    Raises:
        DatasetError: the folder is unknown.
    """
    if images is not None:
        return images
    place = beside.resolve()
    kept = _of_pipeline(place) or _of_colmap(place)
    if kept is None:
        raise DatasetError(
            f"{beside}: found no record of the folder of its images next to it; give "
            "the folder with --images"
        )
    return kept


def _of_pipeline(place: Path) -> Path | None:
    """From the report above a database, a map, or the model in it."""
    for folder in place.parents[:2]:
        root = _recorded(folder / REPORT_NAME, "inputs", "mapping", "path")
        if root is not None:
            return root / RECORDS
    return None


def _of_colmap(place: Path) -> Path | None:
    """From the records of kapture_r2d2_colmap next to a database, or with the
    models."""
    records = work_folder(place) / "datasets" / "mapping" / RECORDS
    if place.is_file() and records.is_dir():
        return records
    return _recorded(place / MARK, "images") or _recorded(place.parent / MARK, "images")


def _recorded(path: Path, *keys: str) -> Path | None:
    """A path in a JSON file; None where there is none."""
    try:
        value: Any = read_json(path)
        for key in keys:
            value = value[key]
        return Path(value)
    except (KeyError, TypeError):
        return None


def image_file(folder: Path, name: str) -> Path:
    """The file of an image.

    Raises:
        DatasetError: it is missing, or the name leads out of the folder.
    """
    path = folder / check_relative_name(name, folder)
    if not path.is_file():
        raise DatasetError(
            f"{path}: found no such file; give the folder that '{name}' is relative to "
            "with --images"
        )
    return path


def require_images(source: Path, names: Collection[str], *wanted: str) -> None:
    """Refuse unknown names, and suggest the nearest one.

    Raises:
        DatasetError: a name is unknown.
    """
    known = frozenset(names)
    for name in wanted:
        if name not in known:
            raise DatasetError(f"{source}: {nearest_name(name, known)}")


def short_names(names: Sequence[str]) -> list[str]:
    """Names of images without their common folders."""
    folders = [PurePosixPath(name).parent for name in names]
    common = os.path.commonpath(folders) if names else ""
    return [PurePosixPath(name).relative_to(common).as_posix() for name in names]


def file_stem(*names: str) -> str:
    """The stem of a picture's name, from the names of its images."""
    return "-".join(name.replace("/", "_")[-MAX_NAME:] for name in names)
