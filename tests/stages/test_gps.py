"""Photographs with GPS in EXIF: from files to metres, and to queries on Earth."""

from __future__ import annotations

import csv
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.georeference import read_georeference
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.gnss import read_gnss
from r2d2_kapture.stages import pipeline, report
from r2d2_kapture.types import Report
from tests.scenes import gps
from tests.scenes.pipeline import PHOTOGRAPHED, Photographs

KNOWN = PipelineConfig(
    photographs=FolderConfig(camera_model="PINHOLE", camera_params="500,500,320,240")
)
OUTLIER = [400.0, -250, 60]


def test_photographs_with_gps(tmp_path: Path) -> None:
    scene = Photographs(tmp_path, times=5)
    true = gps.places(scene.scene)
    photos = {
        p.relative_to(scene.photos).as_posix(): p for p in scene.photos.rglob("*.jpg")
    }
    wrong = min(photos)
    for name, path in photos.items():
        gps.tag(path, true[name] + (OUTLIER if name == wrong else np.zeros(3)))
    for path in scene.queries.rglob("*.jpg"):
        gps.tag(path, true[path.relative_to(scene.queries).as_posix()])
    stages: dict[str, Report] = {}
    work = tmp_path / "work"
    whole = pipeline.run(
        KNOWN,
        images=scene.photos,
        queries={PHOTOGRAPHED: scene.queries},
        features=[scene.features],
        output=work,
        options=RunOptions(progress=False),
        announce=lambda item: stages.update({item.stage: item}),
    )
    assert whole.failed == ()
    (warning,) = whole.warnings
    assert f"disagree with the map and count for little: '{wrong}'" in warning
    with closing(pycolmap.Database.open(str(work / "database.db"))) as database:
        priors = database.read_all_pose_priors()
    wgs84 = pycolmap.PosePriorCoordinateSystem.WGS84
    assert len(priors) == len(photos)
    assert {prior.coordinate_system for prior in priors} == {wgs84}

    found = read_georeference(work / "map")
    assert found is not None and (found.images, found.outliers) == (12, 1)
    model = pycolmap.Reconstruction(str(work / "map" / "sparse"))
    centers = {i.name: i.projection_center() for i in model.images.values()}
    placed = found.wgs84(np.array(list(centers.values())))
    assert placed is not None
    assert gps.errors(dict(zip(centers, placed)), scene.scene).max() < 0.1
    assert read_gnss(open_dataset(work / "map" / "kapture")).keys() == centers.keys()

    localized = work / "localized" / PHOTOGRAPHED
    for outputs in (whole.outputs, stages["localize"].outputs):
        assert localized / "positions.csv" in outputs
    with (localized / "positions.csv").open(encoding="utf-8", newline="") as file:
        rows = {row.pop("image"): row for row in csv.DictReader(file)}
    assert len(rows) == 3
    queries = {
        name.removeprefix(f"{PHOTOGRAPHED}/"): np.array([*map(float, row.values())][:3])
        for name, row in rows.items()
    }
    assert gps.errors(queries, scene.scene).max() < 0.1
    assert max(float(row["gnss_distance"]) for row in rows.values()) < 0.1
    assert stages["localize"].details["median_gnss_distance"] < 0.1

    again = pipeline.run(
        KNOWN,
        images=scene.photos,
        queries={PHOTOGRAPHED: scene.queries},
        features=[scene.features],
        output=work,
        options=RunOptions(progress=False),
    )
    assert (again.done, again.warnings) == (0, whole.warnings)
    report.run(pipeline=work)
    page = next(work.glob("*.html")).read_text("utf-8")
    assert "origin (WGS84)" in page and "distance from GNSS (m)" in page
    latitude = min(rows.values(), key=lambda row: row["latitude"])["latitude"]
    assert f"{float(latitude):.7f}" in page
