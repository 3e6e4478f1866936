"""Sparse models of a COLMAP database, in the folders that COLMAP's mapper makes."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.check import check_database, copy_database, database_sha256
from r2d2_kapture.io.georeference import (
    GEOREFERENCE_NAME,
    read_georeference,
    write_georeference,
)
from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.io.outputs.ledger import STAGE, Contents, is_made_with, rebuilding
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.stages.map import (
    Workspace,
    draw_model,
    find_priors,
    left_out,
    map_settings,
    map_with_priors,
    maybe_turned,
    model_numbers,
    read_verified,
    sizes_without_use,
)
from r2d2_kapture.types import Failure, Report

MARK = "r2d2_kapture.json"
CONTENTS = Contents(
    what="sparse models",
    files=("[0-9]*/*.bin", "[0-9]*/map.p*", f"0/{GEOREFERENCE_NAME}", MARK),
    flag="--sparse",
)


def work_folder(database: Path) -> Path:
    """Where what is needed to resume lies."""
    return database.with_name(f"{database.stem}_r2d2")


def write_sparse_models(
    config: MapConfig,
    database: Path,
    images: Path,
    output: Path,
    options: RunOptions,
    given: Sequence[pycolmap.Camera] = (),
    as_stored: bool = False,
) -> Report:
    """Find poses and points of all images of a database.

    Args:
        config: settings of mapping.
        database: with two-view geometries; read only.
        images: their folder, for the colours of points.
        output: gets folders 0, 1, ..., the model of most images first, with map.png
            and map.ply in each; the first has georeference.json where position priors
            of the database put it on Earth.
        options: how to run. ``force`` replaces models of other settings.
        given: known cameras, which mapping does not refine.
        as_stored: whether features depend on how images are turned, and these were not.

    Returns:
        A report that counts models; its numbers are mostly of the first one, its
        failures the images of the database that are not in that one.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
        ReconstructionError: no model, or too few points.
    """
    started = time.monotonic()
    check_database(database)
    if config.method == "auto":
        config = dataclasses.replace(config, method="incremental")
    manifest = _manifest(map_settings(config), database_sha256(database))
    earlier = read_json(output / MARK)
    is_done = is_made_with(output, CONTENTS, manifest, options, older=_older(earlier))
    if is_done and earlier and not options.force:
        places = sorted(path for path in output.iterdir() if path.is_dir())
        return Report(
            stage="map",
            unit="model",
            done=0,
            skipped=len(places),
            failed=tuple(Failure(**failure) for failure in earlier["failed"]),
            warnings=(
                *earlier.get("warnings", ()),
                *(text for p in places for text in _drawn(p)),
            ),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details=earlier["numbers"],
        )
    with (
        rebuilding(output, CONTENTS, manifest) as folder,
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
        priors, too_few = find_priors(config, copy)
        models, calibration, metric = map_with_priors(
            config, workspace, options, priors
        )
        found = [
            *too_few,
            *metric.warnings,
            *sizes_without_use(config, calibration),
        ]
        if as_stored:
            found += maybe_turned(models[0], content)
        warnings = list(found)
        for number, model in enumerate(models):
            place = folder / str(number)
            place.mkdir()
            model.write(str(place))
            lies = metric.georeference if number == 0 else None
            warnings += draw_model(place, model, georeference=lies)
        if metric.georeference is not None:
            write_georeference(folder / "0", metric.georeference)
        report = Report(
            stage="map",
            unit="model",
            done=len(models),
            skipped=0,
            failed=left_out(models, content, config),
            warnings=tuple(warnings),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details=model_numbers(models) | calibration | metric.details(),
        )
        mark = {
            "images": str(images.resolve()),
            "numbers": report.details,
            "failed": [dataclasses.asdict(failure) for failure in report.failed],
            "warnings": found,
        }
        write_json_atomic(folder / MARK, mark)
    return report


def _drawn(place: Path) -> tuple[str, ...]:
    """The warnings of pictures that had to be drawn again."""
    return draw_model(place, place, georeference=read_georeference(place))


def _is_same(camera: pycolmap.Camera, other: pycolmap.Camera) -> bool:
    return (
        camera.model_name == other.model_name
        and (camera.width, camera.height) == (other.width, other.height)
        and np.allclose(camera.params, other.params, rtol=1e-9, atol=1e-9)
    )


def _manifest(settings: dict[str, Any], database: str) -> Manifest:
    return Manifest(
        model={},
        settings={**settings, STAGE: "sparse models"},
        versions=package_versions() | {"pycolmap": pycolmap.__version__},
        inputs={"database": ("", database)},
    )


def _older(mark: dict[str, Any]) -> Manifest | None:
    """The manifest of models of version 0.1, which was part of their mark."""
    inputs = mark.get("inputs")
    return None if inputs is None else _manifest(inputs["settings"], inputs["database"])
