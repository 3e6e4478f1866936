"""Names of image files, under which their features are stored."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.ledger import Contents

NAMES_FILE = "names.json"
FEATURES = Contents(what="features", files=(), flag="--output-dir")


def name_images(
    images: Sequence[Path],
    image_root: Path | None,
    folders: Sequence[Path],
    output_dir: Path | None,
    *,
    force: bool,
) -> dict[str, Path]:
    """Name images by their paths relative to a folder, consistently across runs.

    The folder is ``image_root``, else that of the first run into ``output_dir``: of
    several folders the one that contains the image; without folders, or if two images
    would share a name, the deepest folder that contains all images. A name in
    ``output_dir`` thus always means the same image. Further folders are added if they
    are given together with those of the first run.

    Args:
        images: files.
        image_root: as given by the user.
        folders: that the images were found in, if several.
        output_dir: folder of the outputs, with a record of the folders.
        force: ignore the record.

    Raises:
        ConfigError: an image is outside of the folders, or two would share a name.
        OutputError: names in ``output_dir`` are relative to another folder.
    """
    given = [] if image_root is None else [normal(image_root)]
    chosen = given or _chosen_roots(images, [normal(folder) for folder in folders])
    if output_dir is None:
        return relative_names(images, chosen)
    record = output_dir / NAMES_FILE
    recorded = [] if force else _recorded_roots(record)
    if given and recorded and given != recorded:
        found = f"names relative to {_listed(recorded)}, not to {given[0]}"
        raise FEATURES.refusal(output_dir, found)
    if recorded and not set(recorded) < set(chosen):
        return relative_names(images, recorded)
    roots = list(dict.fromkeys([*recorded, *chosen]))
    names = relative_names(images, roots)
    kept = [str(root) for root in roots]
    write_json_atomic(record, {"image_root": kept[0] if len(kept) == 1 else kept})
    return names


def relative_names(images: Sequence[Path], roots: Sequence[Path]) -> dict[str, Path]:
    """Name images by their path below the first of ``roots`` that contains them.

    Raises:
        ConfigError: an image is in none of them, or two share a name.
    """
    names: dict[str, Path] = {}
    for path in images:
        place = normal(path)
        root = next((root for root in roots if place.is_relative_to(root)), None)
        if root is None:
            raise ConfigError(
                f"{path}: not in {_listed(roots)}, which names are relative to; give "
                "another --image-root or --output-dir"
            )
        name = place.relative_to(root).as_posix()
        other = names.setdefault(name, path)
        if normal(other) != place:
            raise ConfigError(
                f"{other} and {path}: found two images of one name '{name}'; give "
                "another --image-root or --output-dir"
            )
    return names


def common_folder(images: Sequence[Path]) -> Path:
    """The deepest folder that contains all images."""
    return Path(os.path.commonpath([normal(path).parent for path in images]))


def normal(path: Path) -> Path:
    """An absolute path without dots; links are not resolved."""
    return Path(os.path.normpath(path.absolute()))


def _chosen_roots(images: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """Folders that give all images different names."""
    if len(folders) > 1:
        try:
            relative_names(images, folders)
        except ConfigError:
            return [common_folder(images)]
        return list(folders)
    return [common_folder(images)]


def _recorded_roots(record: Path) -> list[Path]:
    if not record.is_file():
        return []
    recorded = json.loads(record.read_text(encoding="utf-8"))["image_root"]
    return [Path(recorded)] if isinstance(recorded, str) else list(map(Path, recorded))


def _listed(roots: Sequence[Path]) -> str:
    return " or ".join(str(root) for root in roots)


def searched_folders(patterns: Sequence[str]) -> list[Path]:
    """The given folders, if all images come from folders."""
    folders = [Path(pattern) for pattern in patterns]
    return folders if all(map(Path.is_dir, folders)) else []
