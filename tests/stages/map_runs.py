"""Datasets and databases to map, and what a map is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.stages.map import stage as map
from r2d2_kapture.stages.verify import stage as verify
from r2d2_kapture.types import Report
from tests.scenes.contents import files_below
from tests.scenes.world import Scene

QUIET = RunOptions(progress=False)
TYPE = "r2d2"


def prepare(root: Path, scene: Scene, config: VerifyConfig = VerifyConfig()) -> Path:
    """The scene as a dataset in ``root/mapping`` and a database ``root/map.db``."""
    scene.write_kapture(root / "mapping")
    verify_scene(root, config)
    return root


def verify_scene(
    root: Path, config: VerifyConfig, features: Sequence[Path] = ()
) -> Report:
    """Make ``root/map.db`` of ``root/mapping``."""
    mapping = root / "mapping"
    return verify.run(
        config,
        mapping=mapping,
        features=features or [mapping],
        matches=[mapping],
        pairs=None,
        database=root / "map.db",
        output=root / "verified",
        options=QUIET,
    )


def run(root: Path, config: MapConfig = MapConfig(), **changes: Any) -> Report:
    settings: dict[str, Any] = {
        "mapping": root / "mapping",
        "database": root / "map.db",
        "output": root / "map",
        "options": QUIET,
    }
    return map.run(config, **(settings | changes))


def remove_poses(root: Path) -> None:
    (root / "mapping" / "sensors" / "trajectories.txt").unlink()


def model_of(root: Path) -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(str(root / "map" / "sparse"))


def load_map(root: Path) -> kapture.Kapture:
    return kcsv.kapture_from_dir(str(root / "map" / "kapture"))


def outputs(folder: Path) -> dict[str, bytes]:
    return files_below(folder, [map.REPORT_NAME, FINISHED_NAME])
