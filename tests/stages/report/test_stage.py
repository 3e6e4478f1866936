"""The file of a report: whole, small, the same each time, and no stage's failure."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.geodesy import EnuFrame
from r2d2_kapture.io.georeference import Georeference, write_georeference
from r2d2_kapture.stages.report import PAGE_NAME, run, stage, with_page
from r2d2_kapture.stages.report.subject import map_subject
from r2d2_kapture.types import Report
from tests.scenes.images import write_noise
from tests.scenes.report import (
    HOSTILE,
    subject_with_queries,
    write_model,
)
from tests.stages.report.test_page import Elements

NAMES = ["b é.png", "a/c.png", "d.png"]
STAGE = Report(
    stage="pipeline", done=1, skipped=0, failed=(), seconds=0.0, outputs=(Path("map"),)
)


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    write_model(tmp_path / "sparse" / "0", NAMES)
    for seed, name in enumerate(NAMES[:2]):
        write_noise(tmp_path / "images" / name, seed, format="PNG")
    return tmp_path / "sparse"


def test_a_page_is_the_same_each_time_and_kept(sparse: Path) -> None:
    images = sparse.parent / "images"
    first = run(map=sparse, images=images)
    (page,) = first.outputs
    assert first.done == 1 and page == sparse / PAGE_NAME
    content = page.read_bytes()
    assert content.count(b"data:image/jpeg;base64,") > 1 and len(content) < 15e6
    os.utime(page, ns=(0, 0))
    again = run(map=sparse, images=images)
    assert (again.done, again.skipped) == (0, 1) and page.stat().st_mtime_ns == 0
    other = run(map=sparse, images=images, output=sparse / "other.html")
    assert other.done == 1 and (sparse / "other.html").read_bytes() == content


def test_a_page_follows_what_it_shows(sparse: Path) -> None:
    images = sparse.parent / "images"
    run(map=sparse, images=images)
    write_noise(images / NAMES[2], 2, format="PNG")
    assert run(map=sparse, images=images).done == 1
    write_model(sparse / "1", NAMES, points=200)
    os.rename(sparse / "1" / "points3D.bin", sparse / "0" / "points3D.bin")
    os.rename(sparse / "1" / "images.bin", sparse / "0" / "images.bin")
    assert run(map=sparse, images=images).done == 1
    assert run(map=sparse, images=images, title="Another").done == 1
    (sparse / PAGE_NAME).unlink()
    assert run(map=sparse, images=images, title="Another").done == 1


def test_what_there_is_no_room_for_is_left_out_and_named(
    sparse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = "r2d2_kapture.stages.report.view."
    for name, most in {"MOST_POINTS": 100, "MOST_KEYPOINTS": 20}.items():
        monkeypatch.setattr(view + name, most)
    cameras = "r2d2_kapture.stages.report.view_cameras.MOST_CAMERAS"
    monkeypatch.setattr(cameras, 2)
    monkeypatch.setattr(view + "MOST_THUMBNAIL_BYTES", 0)
    run(map=sparse, images=sparse.parent / "images")
    text = " ".join((sparse / PAGE_NAME).read_text("utf-8").split())
    for said in (
        "100 of 300 points drawn, evenly sampled",
        "2 of 3 mapping images drawn",
        "20 of ",
        "0 of 2 images with a photograph",
    ):
        assert said in text


def test_the_3d_view_has_east_and_north_where_they_are_known(sparse: Path) -> None:
    turn = Rotation.from_euler("zyx", [20, 130, 40], degrees=True)
    lies = Georeference(
        frame=EnuFrame(latitude=30.2, longitude=-98.0, altitude=358.0),
        metric_from_map=pycolmap.Sim3d(
            2.0, pycolmap.Rotation3d(turn.as_quat()), np.ones(3)
        ),
        images=3,
        outliers=0,
        residual_median=0.1,
        residual_95=0.2,
    )
    write_georeference(sparse / "0", lies)
    run(map=sparse)
    scripts = Elements((sparse / PAGE_NAME).read_text("utf-8")).scripts
    [data] = [json.loads(s) for s in scripts if s.startswith('{"cameras"')]
    np.testing.assert_allclose(data["frame"]["axes"], turn.as_matrix(), atol=1e-12)


def test_names_of_queries_and_conditions_are_inert(
    sparse: Path, tmp_path: Path
) -> None:
    subject = subject_with_queries(tmp_path, map_subject(sparse))
    page = tmp_path / "page.html"
    stage.report_subject(subject, page, HOSTILE)
    found = Elements(page.read_text("utf-8"))
    assert "img" not in found.tags and not any(
        "alert(" in s
        for s in found.scripts
        if "THREE" not in s and "Plotly" not in s and not s.lstrip().startswith("{")
    )
    assert sum("alert('a')" in text for text in found.text) > 3


def test_no_name_leads_outside_of_the_images(tmp_path: Path) -> None:
    private = write_noise(tmp_path / "private.png", 0, format="PNG")
    write_model(tmp_path / "sparse", [str(private), "../private.png", "a.png"])
    found = map_subject(tmp_path / "sparse", tmp_path / "images").images
    assert list(found) == ["a.png"]


def test_a_folder_without_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no COLMAP model"):
        run(map=tmp_path)


def test_a_page_that_fails_is_a_warning_of_the_stage() -> None:
    def fail() -> Report:
        raise ZeroDivisionError("a map of nothing")

    report = with_page(STAGE, fail)
    assert report.outputs == STAGE.outputs and not report.failed
    (warning,) = report.warnings
    assert "report.html was not written: a map of nothing" in warning


def test_a_page_is_an_output_of_the_stage() -> None:
    page = dataclasses.replace(STAGE, outputs=(Path("report.html"),), warnings=("a",))
    report = with_page(STAGE, lambda: page)
    assert report.outputs == (Path("map"), Path("report.html"))
    assert report.warnings == ("a",)
