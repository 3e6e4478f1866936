"""The sections of a pipeline and of a map alone: true figures, nothing empty."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.stages import pipeline
from r2d2_kapture.stages.localize import QueryResult
from r2d2_kapture.stages.report.content import content_sections
from r2d2_kapture.stages.report.localization import localization_section
from r2d2_kapture.stages.report.outcomes import Outcome, all_thresholds, judge
from r2d2_kapture.stages.report.query_views import open_query_views
from r2d2_kapture.stages.report.subject import (
    QuerySet,
    map_subject,
    pipeline_subject,
)
from tests.scenes.pipeline import PipelineScene
from tests.stages.report.test_page import Elements

CONFIG = PipelineConfig(
    query_pairs=PairsConfig(method="exhaustive"),
    match=MatchConfig(matcher=MutualNearestConfig(ratio=0.97)),
)
ORIGIN = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.zeros(3))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    scene = PipelineScene(root)
    pipeline.run(
        CONFIG,
        mapping=scene.mapping,
        queries={"queries é": scene.query},
        output=root / "work",
        features=[scene.features],
        options=RunOptions(progress=False),
    )
    return root / "work"


def cells(html: str) -> list[list[str]]:
    """The text of the rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_a_pipeline_has_every_section(work: Path) -> None:
    sections = {
        one.identifier: one.html for one in content_sections(pipeline_subject(work))
    }
    assert list(sections) == [
        *("summary", "map", "refinement", "localization", "matches"),
    ]
    summary = cells(sections["summary"])
    assert ["match.ratio", "0.97", "1"] in summary
    assert [row[:3] for row in summary if row and row[0] == "localize"] == [
        ["localize", "queries é", "3 queries"]
    ]
    assert "9 of 9" in sections["map"] and ">120<" in sections["map"]
    [recall] = [row for row in cells(sections["localization"]) if row[1:2] == ["all"]]
    # 120 points seen with 0.2 pixels of noise: millimetres, hundredths of a degree
    assert recall[2:4] == ["3", "3"] and recall[-1] == "100.0"
    assert sections["localization"].count("<img ") == 3
    assert ">36<" in sections["matches"]
    assert "27 pairs, 27 of them with matches" in sections["matches"]
    for html in sections.values():
        for script in Elements(html).scripts:
            json.loads(script, parse_constant=pytest.fail)


def test_a_map_of_ours_has_the_summary_of_its_stage(work: Path) -> None:
    first, *_ = content_sections(map_subject(work / "map"))
    assert first.identifier == "summary"
    [row] = [row for row in cells(first.html) if row and row[0] == "map"]
    assert "120 points" in row[-1] and "9 images registered" in row[-1]


def test_a_map_alone_has_what_it_knows(work: Path, tmp_path: Path) -> None:
    (tmp_path / "sparse").symlink_to(work / "map" / "sparse")
    sections = {one.identifier: one for one in content_sections(map_subject(tmp_path))}
    assert list(sections) == ["map", "matches"]
    assert sections["matches"].title == "Points shared by images"
    assert "<img " not in sections["map"].html


def test_features_that_are_gone_cost_the_pictures_alone(
    work: Path, tmp_path: Path
) -> None:
    views = open_query_views(
        map_path=work / "map",
        features=[tmp_path / "gone"],
        matches=work / "matches",
        pairs=work / "pairs" / "queries é.txt",
        localized=work / "localized" / "queries é",
        keypoints_type="points",
    )
    assert views is None


def test_the_best_map_image_shows_the_points_that_the_pose_explains(
    work: Path,
) -> None:
    [queries] = pipeline_subject(work).queries
    views = open_query_views(
        map_path=work / "map",
        features=[work.parent / "features"],
        matches=work / "matches",
        pairs=work / "pairs" / "queries é.txt",
        localized=queries.localized,
        keypoints_type="points",
    )
    assert views is not None
    name, result = next(iter(queries.results.items()))
    view = views.best(name, result)
    assert view is not None and view.inliers.mean() > 0.95
    without = views.best(name, None)
    assert without is not None and not without.inliers.any()


def at(x: float, degrees: float = 0.0) -> pycolmap.Rigid3d:
    """A camera ``x`` metres beside the origin, turned."""
    half = np.radians(degrees) / 2
    rotation = pycolmap.Rotation3d(np.array([0, np.sin(half), 0, np.cos(half)]))
    return pycolmap.Rigid3d(rotation, rotation * np.array([-x, 0, 0]))


def result_of(name: str, pose: pycolmap.Rigid3d) -> QueryResult:
    x, y, z, w = pose.rotation.quat
    return QueryResult(
        image=name,
        inliers=100,
        verdict="good",
        cam_from_world=(w, x, y, z, *pose.translation),
        camera=("PINHOLE", "640", "480", "500", "500", "320", "240"),
    )


def test_recall_by_hand(tmp_path: Path) -> None:
    """Four queries: 4 cm; 30 cm; 30 cm and turned by 8 degrees; without a pose."""
    poses = {"a": at(0.04), "b": at(0.3), "c": at(0.3, 8.0)}
    (tmp_path / "per_image.csv").write_text(
        "estimate,image,conditions,localized\nq,a,day,1\nq,b,day;rain,1\nq,d,,0\n"
    )
    queries = QuerySet(
        name="q",
        localized=tmp_path,
        evaluated=tmp_path,
        images={},
        results={name: result_of(name, pose) for name, pose in poses.items()},
        cameras=dict.fromkeys("abcd"),  # type: ignore[arg-type]
        truth=dict.fromkeys("abcd", ORIGIN),
    )
    thresholds = all_thresholds()
    found = judge(queries, thresholds=thresholds, align=False)
    assert found.evaluation is not None
    assert dict(zip(thresholds, found.evaluation.total.recall)) == {
        (0.01, 0.1): 0.0,
        (0.05, 0.5): 0.25,
        (0.1, 1.0): 0.25,
        (0.25, 2.0): 0.25,
        (0.5, 5.0): 0.5,
        (5.0, 10.0): 0.75,
    }
    shares = {
        condition: (summary.images, summary.recall[-2:])
        for condition, summary in found.evaluation.conditions.items()
    }
    assert shares == {"day": (2, (1.0, 1.0)), "rain": (1, (1.0, 1.0))}
    html = localization_section([found, found], {}, {}, thresholds).html
    assert cells(html)[1] == ["q", "4", "3", "0", "1"], "verdicts"
    assert [row[6:] for row in cells(html) if row and row[1] == "all"] == [
        ["0.0", "25.0", "25.0", "25.0", "50.0", "75.0"]
    ] * 2
    assert found.worst_first[0].name == "d"
    assert [one.name for one in found.worst_first][-1] == "a"


def test_without_truth_the_doubtful_and_the_weak_come_first() -> None:
    def outcome(name: str, verdict: Any, inliers: int) -> Outcome:
        result = QueryResult(image=name, inliers=inliers, verdict=verdict)
        return Outcome(name=name, result=None if verdict is None else result)

    outcomes = [
        outcome("strong", "good", 90),
        outcome("weak", "good", 20),
        outcome("doubtful", "doubtful", 40),
        outcome("lost", None, 0),
    ]
    ordered = sorted(outcomes, key=lambda one: one.rank)
    assert [one.name for one in ordered] == ["lost", "doubtful", "weak", "strong"]
