"""Runs of the verification of a scene, and what they write."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pycolmap

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.stages.verify import stage as verify
from r2d2_kapture.types import Report
from tests.scenes.world import Scene

CHECKOUT = Path(__file__).resolve().parents[2]
TYPE = "r2d2"


def run(mapping: Path, config: VerifyConfig = VerifyConfig(), **changes: Any) -> Report:
    out = mapping.parent
    settings: dict[str, Any] = {
        "features": [mapping],
        "matches": [mapping],
        "pairs": None,
        "database": out / "map.db",
        "output": out / "verified",
        "options": RunOptions(progress=False),
    }
    return verify.run(config, mapping=mapping, **(settings | changes))


def folder(mapping: Path) -> Path:
    return mapping.parent / "verified" / "reconstruction" / "matches" / TYPE


TIMED = (verify.REPORT_NAME, FINISHED_NAME, ".lock")


def outputs(mapping: Path) -> dict[str, bytes]:
    """All that a run writes but for what holds times."""
    paths = [*folder(mapping).rglob("*"), mapping.parent / "map.db"]
    return {
        str(path.relative_to(mapping.parent)): path.read_bytes()
        for path in paths
        if path.is_file() and path.name not in TIMED
    }


def inliers_of(database: Path) -> dict[tuple[int, int], list[list[int]]]:
    with closing(pycolmap.Database.open(str(database))) as opened:
        pair_ids, geometries = opened.read_two_view_geometries()
    return {
        pycolmap.pair_id_to_image_pair(pair_id): geometry.inlier_matches.tolist()
        for pair_id, geometry in zip(pair_ids, geometries)
        if len(geometry.inlier_matches)
    }


def write_list(path: Path, pairs: list[tuple[str, str]]) -> Path:
    write_pairs(path, [ImagePair(image1=a, image2=b) for a, b in pairs])
    return path


def plain_database(path: Path, scene: Scene) -> Path:
    scene.write(path)
    return path
