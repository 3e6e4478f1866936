"""The unit of a map: metres, or its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r2d2_kapture.io.georeference import (
    PARTS_OF_MAP,
    Georeference,
    read_georeference,
)
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.io.outputs.ledger import STAGE
from r2d2_kapture.io.outputs.manifest import FILE_NAME
from r2d2_kapture.types import MAP_UNIT, METRES, OWN_UNITS

REPORT_NAME = "report.json"
METRE_TOLERANCE = 0.05
"""Metres in a unit of the map, less 1: GNSS does not know them better."""


def map_unit(georeference: Georeference | None, metric_poses: bool) -> str:
    """METRES or OWN_UNITS.

    Args:
        georeference: of the map; where it is known it decides.
        metric_poses: whether the map was made in known poses in metres.
    """
    if georeference is not None:
        scale = float(georeference.metric_from_map.scale)
        return METRES if abs(scale - 1) < METRE_TOLERANCE else OWN_UNITS
    return METRES if metric_poses else OWN_UNITS


def has_metric_poses(dataset: Path) -> bool:
    """Whether poses of a kapture dataset are in metres, as kapture says they are: not
    those of an imported model, unless that is a map in metres."""
    manifest = read_json(dataset / FILE_NAME)
    if manifest.get("settings", {}).get(STAGE) != "import":
        return True
    model = manifest.get("inputs", {}).get("model")
    return bool(model) and read_map_unit(Path(model[0])) == METRES


def read_map_unit(path: Path) -> str:
    """METRES or OWN_UNITS of a map, which are its own if nothing beside it says more.

    Args:
        path: see read_georeference.

    Raises:
        DatasetError: its georeference is broken.
    """
    report = _map_report(path)
    known = report.get("method") == "triangulate"
    metric_poses = report.get(MAP_UNIT, METRES if known else OWN_UNITS) == METRES
    return map_unit(read_georeference(path), metric_poses)


def _map_report(path: Path) -> dict[str, Any]:
    """Of kapture_r2d2_map; empty for the map of another tool."""
    folder = path.parent if path.name in PARTS_OF_MAP else path
    report = read_json(folder / REPORT_NAME)
    return report if report.get("stage") == "map" else {}
