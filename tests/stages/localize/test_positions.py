"""Queries on Earth: latitude, longitude, altitude, and the distance from their GNSS."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.geodesy import EnuFrame
from r2d2_kapture.io.georeference import (
    GEOREFERENCE_NAME,
    Georeference,
    write_georeference,
)
from r2d2_kapture.io.kapture.gnss import GnssPosition, Position, add_gnss
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.types import FloatArray
from tests.scenes.localization import LocalizationScene

SITE = EnuFrame(latitude=64.1466, longitude=-21.9426, altitude=61.0)
TURN = Rotation.from_euler("zyx", [20, 30, 40], degrees=True)
SINGLE = LocalizeConfig(rigs="off")


@pytest.fixture
def scene(tmp_path: Path) -> LocalizationScene:
    """A map of 3 metres a unit, on Earth."""
    made = LocalizationScene(tmp_path)
    write_georeference(made.map_path, georeference(SITE))
    return made


def georeference(frame: EnuFrame | None) -> Georeference:
    rotation = pycolmap.Rotation3d(TURN.as_quat())
    return Georeference(
        frame=frame,
        metric_from_map=pycolmap.Sim3d(3.0, rotation, np.array([10.0, 20, 30])),
        images=9,
        outliers=0,
        residual_median=0.5,
        residual_95=1.5,
    )


def true_enu(scene: LocalizationScene, name: str) -> FloatArray:
    center = np.array(scene.scene.poses[name].inverse().t_raw)
    return np.asarray(3.0 * TURN.apply(center) + [10, 20, 30])


def outcome(scene: LocalizationScene, name: str) -> dict[str, object]:
    path = scene.root / "output" / "queries" / f"{name}.json"
    return dict(json.loads(path.read_text("utf-8")))


def test_queries_are_on_earth(scene: LocalizationScene) -> None:
    scene.run(SINGLE)
    text = (scene.root / "output" / "positions.csv").read_text("utf-8")
    rows = {row["image"]: row for row in csv.DictReader(text.splitlines())}
    assert sorted(rows) == scene.queries
    for name in scene.queries:
        stored = outcome(scene, name)["wgs84"]
        listed = [float(rows[name][k]) for k in ("latitude", "longitude", "altitude")]
        for place, tolerance in ((stored, 1e-3), (listed, 1.2e-3)):
            enu = SITE.enu_from_wgs84(np.array([place]))[0]
            assert np.linalg.norm(enu - true_enu(scene, name)) < tolerance
        assert rows[name]["gnss_distance"] == ""
        assert "gnss_distance" not in outcome(scene, name)


def test_the_distance_from_their_own_gnss_position_is_known(
    scene: LocalizationScene,
) -> None:
    left, right, walker = scene.queries
    off = {left: [3.0, 4, 12], right: [3.0, 4, 0]}
    positions: dict[str, Position] = {}
    for name, offset in off.items():
        there = SITE.wgs84_from_enu((true_enu(scene, name) + offset)[None])[0]
        latitude, longitude, altitude = there.tolist()
        known = altitude if name == left else None
        positions[name] = GnssPosition(
            latitude=latitude, longitude=longitude, altitude=known
        )
    data = kcsv.kapture_from_dir(str(scene.query))
    add_gnss(data, positions)
    kcsv.kapture_to_dir(str(scene.query), data)
    report = scene.run(SINGLE)
    assert outcome(scene, left)["gnss_distance"] == pytest.approx(13, abs=2e-3)
    # horizontally where the altitude is not known
    assert outcome(scene, right)["gnss_distance"] == pytest.approx(5, abs=2e-3)
    assert "gnss_distance" not in outcome(scene, walker)
    assert report.details["median_gnss_distance"] == pytest.approx(9, abs=2e-3)


def test_axes_are_where_latitudes_longitudes_and_altitudes_rise() -> None:
    """One unit of the map is 3 m."""
    lies = georeference(SITE)
    assert lies.axes is not None and georeference(None).axes is None
    wgs84 = lies.wgs84(np.stack([np.zeros(3), *lies.axes]))
    assert wgs84 is not None
    east, north, up = wgs84[1:] - wgs84[0]
    assert east[1] > 0 and east[0] == pytest.approx(0, abs=1e-8)
    assert north[0] > 0 and north[1] == pytest.approx(0, abs=1e-8)
    assert up[2] == pytest.approx(3, abs=1e-3)


def test_a_map_that_is_nowhere_has_no_places(scene: LocalizationScene) -> None:
    (scene.map_path / GEOREFERENCE_NAME).unlink()
    report = scene.run(SINGLE)
    assert "median_gnss_distance" not in report.details
    assert not (scene.root / "output" / "positions.csv").exists()
    assert "wgs84" not in outcome(scene, scene.queries[0])


def test_places_follow_the_map(scene: LocalizationScene) -> None:
    scene.run(SINGLE)
    assert scene.run(SINGLE).skipped == 3
    first = (scene.root / "output" / "positions.csv").read_bytes()
    moved = EnuFrame(latitude=10.0, longitude=20.0, altitude=0.0)
    write_georeference(scene.map_path, georeference(moved))
    scene.run(SINGLE)
    assert (scene.root / "output" / "positions.csv").read_bytes() != first
    place = outcome(scene, scene.queries[0])["wgs84"]
    assert isinstance(place, list) and place[0] == pytest.approx(10, abs=1e-2)
    (scene.map_path / GEOREFERENCE_NAME).unlink()
    scene.run(SINGLE)
    assert not (scene.root / "output" / "positions.csv").exists()
    assert "wgs84" not in outcome(scene, scene.queries[0])


@pytest.mark.parametrize("text", ["{}", "[1]", '{"origin": null}', "\0"])
def test_a_broken_georeference_is_refused(scene: LocalizationScene, text: str) -> None:
    (scene.map_path / GEOREFERENCE_NAME).write_text(text, "utf-8")
    with pytest.raises(DatasetError, match="not a georeference of a map") as error:
        scene.run(SINGLE)
    assert "\n" not in str(error.value)


def test_queries_that_agree_by_chance_may_be_turned(scene: LocalizationScene) -> None:
    strict = dataclasses.replace(SINGLE, min_inliers=9999)
    assert not any("--rotations" in text for text in scene.run(strict).warnings)
    record = Manifest(model={}, settings={"extractor": "r2d2"}, versions={})
    for table in scene.root.rglob("keypoints.txt"):
        write_json_atomic(table.parent / "manifest.json", record.to_json())
    (said,) = (t for t in scene.run(strict).warnings if "--rotations auto" in t)
    assert said.startswith("3 queries agreed with the map no more than by chance")
    good = scene.run(SINGLE, output="good")
    assert not any("--rotations" in text for text in good.warnings)
