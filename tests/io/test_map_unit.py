"""A map is in metres where something says so, and in its own units elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.io.geodesy import EnuFrame
from r2d2_kapture.io.georeference import Georeference, write_georeference
from r2d2_kapture.io.map_unit import has_metric_poses, map_unit, read_map_unit
from r2d2_kapture.types import METRES, OWN_UNITS, Report


def lies(metres_per_unit: float) -> Georeference:
    return Georeference(
        frame=EnuFrame(latitude=30.2, longitude=-98.0, altitude=358.0),
        metric_from_map=pycolmap.Sim3d(
            metres_per_unit, pycolmap.Rotation3d(), np.zeros(3)
        ),
        images=9,
        outliers=0,
        residual_median=0.1,
        residual_95=0.2,
    )


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    "georeference, metric_poses, unit",
    [
        (None, False, OWN_UNITS),
        (None, True, METRES),
        (lies(1.0), False, METRES),
        # known poses of an imprecise GNSS, and those that are not in metres
        (lies(1.01), True, METRES),
        (lies(7.0), True, OWN_UNITS),
    ],
)
def test_positions_decide_before_poses(
    georeference: Georeference | None, metric_poses: bool, unit: str
) -> None:
    assert map_unit(georeference, metric_poses) == unit


@pytest.mark.parametrize(
    "report, unit",
    [
        ({"stage": "map", "method": "incremental"}, OWN_UNITS),
        # made before the unit was written
        ({"stage": "map", "method": "triangulate"}, METRES),
        (
            {"stage": "map", "method": "triangulate", "map_unit": OWN_UNITS},
            OWN_UNITS,
        ),
        ({"method": "triangulate"}, OWN_UNITS),
    ],
)
def test_the_unit_of_a_map_of_ours_is_read(
    tmp_path: Path, report: dict[str, str], unit: str
) -> None:
    assert read_map_unit(tmp_path / "sparse") == OWN_UNITS
    write(tmp_path / "report.json", report)
    assert read_map_unit(tmp_path) == read_map_unit(tmp_path / "sparse") == unit
    write_georeference(tmp_path, lies(1.0))
    assert read_map_unit(tmp_path) == METRES


def test_poses_of_a_model_are_metric_if_its_map_is(tmp_path: Path) -> None:
    dataset, model = tmp_path / "dataset", tmp_path / "map" / "sparse"
    assert has_metric_poses(dataset)
    imported = {
        "settings": {"stage": "import"},
        "inputs": {"model": [str(model), "digest"]},
    }
    write(dataset / "manifest.json", imported)
    assert not has_metric_poses(dataset)
    write(tmp_path / "map" / "report.json", {"stage": "map", "method": "triangulate"})
    assert has_metric_poses(dataset)


@pytest.mark.parametrize(
    "details, said",
    [
        ({"map_unit": METRES}, "positions: 0.02 m\n"),
        ({"map_unit": OWN_UNITS}, "positions: 0.02 units of the map\n"),
        ({}, "positions: 0.02 units of the map\n"),
    ],
)
def test_a_report_has_deviations_in_the_unit_of_the_map(
    details: dict[str, str], said: str
) -> None:
    report = Report(
        stage="localize",
        done=1,
        skipped=0,
        failed=(),
        seconds=0.0,
        outputs=(Path("out"),),
        details={"median_position_std": 0.02, **details},
    )
    assert said in report.to_text() and "map_unit" not in report.to_text()
