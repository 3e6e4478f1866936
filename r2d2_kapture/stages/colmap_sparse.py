"""Sparse models of a COLMAP database, in the folders that COLMAP's mapper makes."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.atomic import write_json_atomic
from r2d2_kapture.io.atomic_folder import building_folder, refuse_foreign_folder
from r2d2_kapture.io.colmap_check import check_database, copy_database, database_sha256
from r2d2_kapture.stages.reconstruct import (
    Workspace,
    map_unknown_poses,
    model_numbers,
)

MARK = "r2d2_kapture.json"


def write_sparse_models(
    config: MapConfig, database: Path, images: Path, output: Path, options: RunOptions
) -> dict[str, Any]:
    """Find poses and points of all images of a database.

    Args:
        config: how.
        database: with two-view geometries; not changed.
        images: their folder, for the colours of points.
        output: gets folders 0, 1, ..., the model of most images first.
        options: how to run. ``force`` replaces models of other settings.

    Returns:
        Numbers of the models for a report.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
        ReconstructionError: no model.
    """
    check_database(database)
    if config.method == "auto":
        config = dataclasses.replace(config, method="incremental")
    settings = dataclasses.asdict(config)
    inputs = {"settings": settings, "database": database_sha256(database)}
    refuse_foreign_folder(output, MARK)
    earlier = _read(output / MARK)
    if earlier.get("inputs") == inputs and not options.force:
        return dict(earlier["numbers"])
    theirs = earlier["inputs"]["settings"] if earlier else settings
    differences = [
        f"{name}: {theirs.get(name)}, not {value}"
        for name, value in settings.items()
        if theirs.get(name) != value
    ]
    if differences and not options.force:
        raise OutputError(
            f"{output}: found models made with {'; '.join(differences)}; choose "
            "another --sparse, or --force to replace them"
        )
    with (
        building_folder(output) as folder,
        tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as scratch,
    ):
        copy = Path(scratch) / "database.db"
        copy_database(database, copy)
        (Path(scratch) / "models").mkdir()
        workspace = Workspace(
            database=copy,
            images=images,
            scratch=Path(scratch) / "models",
            known_cameras=frozenset(),
        )
        models = map_unknown_poses(config, workspace, options)
        for number, model in enumerate(models):
            (folder / str(number)).mkdir()
            model.write(str(folder / str(number)))
        numbers = model_numbers(models)
        write_json_atomic(folder / MARK, {"inputs": inputs, "numbers": numbers})
    return numbers


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["inputs"]["settings"], content["numbers"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return dict(content)
