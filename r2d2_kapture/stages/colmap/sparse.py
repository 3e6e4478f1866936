"""Sparse models of a COLMAP database, in the folders that COLMAP's mapper makes."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.colmap.check import check_database, copy_database, database_sha256
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.atomic_folder import building_folder, refuse_foreign_folder
from r2d2_kapture.stages.map import (
    Workspace,
    draw_model,
    left_out,
    map_unknown_poses,
    model_numbers,
    read_verified,
)
from r2d2_kapture.types import Failure

MARK = "r2d2_kapture.json"


def work_folder(database: Path) -> Path:
    """Where what is needed to resume lies."""
    return database.with_name(f"{database.stem}_r2d2")


@dataclass(frozen=True, kw_only=True)
class SparseModels:
    """Results of mapping, for a report.

    Attributes:
        numbers: mostly of the first model.
        failed: images of the database that are not in the first model.
        warnings: why models are not drawn.
        made: number of models made by this run.
    """

    numbers: dict[str, Any]
    failed: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    made: int = 0


def write_sparse_models(
    config: MapConfig,
    database: Path,
    images: Path,
    output: Path,
    options: RunOptions,
    given: Sequence[pycolmap.Camera] = (),
) -> SparseModels:
    """Find poses and points of all images of a database.

    Args:
        config: settings of mapping.
        database: with two-view geometries; read only.
        images: their folder, for the colours of points.
        output: gets folders 0, 1, ..., the model of most images first, with map.png
            and map.ply in each.
        options: how to run. ``force`` replaces models of other settings.
        given: known cameras, which mapping does not refine.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
        ReconstructionError: no model, or too few points.
    """
    check_database(database)
    if config.method == "auto":
        config = dataclasses.replace(config, method="incremental")
    settings = dataclasses.asdict(config)
    inputs = {"settings": settings, "database": database_sha256(database)}
    refuse_foreign_folder(output, MARK)
    earlier = _read(output / MARK)
    if earlier.get("inputs") == inputs and not options.force:
        failed = tuple(Failure(**failure) for failure in earlier["failed"])
        drawn = [
            text
            for place in sorted(path for path in output.iterdir() if path.is_dir())
            for text in draw_model(place, place)
        ]
        return SparseModels(
            numbers=earlier["numbers"], failed=failed, warnings=tuple(drawn)
        )
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
        content = read_verified(copy, database)
        workspace = Workspace(
            database=copy,
            images=images,
            scratch=Path(scratch) / "models",
            known_cameras=frozenset(
                camera_id
                for camera_id, camera in content.cameras.items()
                if any(_is_same(camera, known) for known in given)
            ),
        )
        models, calibration = map_unknown_poses(config, workspace, options)
        warnings: list[str] = []
        for number, model in enumerate(models):
            place = folder / str(number)
            place.mkdir()
            model.write(str(place))
            warnings += draw_model(place, model)
        made = SparseModels(
            numbers=model_numbers(models) | calibration,
            failed=left_out(models, content, config),
            warnings=tuple(warnings),
            made=len(models),
        )
        kept = {"inputs": inputs, "images": str(images.resolve())}
        write_json_atomic(folder / MARK, kept | dataclasses.asdict(made))
    return made


def _is_same(camera: pycolmap.Camera, other: pycolmap.Camera) -> bool:
    return (
        camera.model_name == other.model_name
        and (camera.width, camera.height) == (other.width, other.height)
        and np.allclose(camera.params, other.params, rtol=1e-9, atol=1e-9)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["inputs"]["settings"], content["numbers"], content["failed"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return dict(content)
