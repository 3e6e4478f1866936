"""The manifest of a map: the settings, the database and the dataset."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.io.colmap.check import database_sha256
from r2d2_kapture.io.colmap.sparse_map import model_digest
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.depth_maps import state_of_depth_maps
from r2d2_kapture.io.kapture.gnss import GNSS_FILE
from r2d2_kapture.io.outputs.ledger import STAGE
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions

LATER = (
    *("points_from", "priors", "prior_accuracy", "patches"),
    *("cluster_images", "block_images"),
)
"""Settings that earlier versions did not have; their defaults are what those did."""


def map_settings(config: MapConfig) -> dict[str, Any]:
    """The settings of a map, as far as they are not what every earlier version did."""
    settings = dataclasses.asdict(config)
    for name in LATER:
        if settings[name] == getattr(MapConfig, name):
            del settings[name]
    return settings


def map_manifest(
    config: MapConfig,
    dataset: Dataset,
    database: Path,
    keypoints_type: str | None,
    left_out: Collection[str],
    initial: Path | None = None,
) -> Manifest:
    """The settings of a map, its database, and the dataset without images left out."""
    digest = hashlib.sha256()
    for name in ("sensors", "rigs", "records_camera", "trajectories"):
        path = dataset.root / "sensors" / f"{name}.txt"
        digest.update(path.read_bytes() if path.is_file() else b"-")
    for name in sorted(left_out):
        digest.update(f"without {name}\n".encode("utf-8", "surrogateescape"))
    if config.points_from != "triangulation":
        digest.update(state_of_depth_maps(dataset))
    positions = dataset.root / "sensors" / GNSS_FILE
    if positions.is_file():
        digest.update(positions.read_bytes())
    return Manifest(
        model={},
        settings={
            **map_settings(config),
            "keypoints_type": keypoints_type,
            STAGE: "map",
            **({} if initial is None else {"initial": str(initial.resolve())}),
        },
        versions=package_versions() | {"pycolmap": pycolmap.__version__},
        inputs={
            "database": (str(database.resolve()), database_sha256(database)),
            "dataset": ("", digest.hexdigest()),
            **({} if initial is None else {"initial": ("", model_digest(initial))}),
        },
    )


def older_manifest(report: Mapping[str, Any]) -> Manifest | None:
    """The manifest of a map whose report holds it, as before version 0.2."""
    try:
        inputs = report["inputs"]
        return Manifest(
            model={},
            settings={**inputs["settings"], STAGE: report["stage"]},
            versions={},
            inputs={
                "database": (inputs["database"], inputs["digests"]["database"]),
                "dataset": ("", inputs["digests"]["dataset"]),
            },
        )
    except (TypeError, KeyError):
        return None
