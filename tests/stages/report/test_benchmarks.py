"""Pages of benchmarks and training: several models side by side, figures by hand."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.homography import PairResult
from r2d2_kapture.evaluation.pair_poses import PairPoseResult
from r2d2_kapture.evaluation.pair_results import PairPoseRun, save_run
from r2d2_kapture.evaluation.results import HomographyResults, save_results
from r2d2_kapture.stages.report.benchmarks import (
    homography_sections,
    pair_pose_sections,
)
from r2d2_kapture.stages.report.training import (
    read_log,
    run_labels,
    thinned,
    training_sections,
)
from r2d2_kapture.training.logs import RunLog
from tests.stages.report.test_blocks import decoded
from tests.stages.report.test_page import Elements

THRESHOLDS = (1.0, 2.0, 3.0, 5.0, 10.0, 15.0)


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return [[unescape(cell) for cell in row] for row in found if row]


def figures(html: str) -> list[dict[str, Any]]:
    return [json.loads(script) for script in Elements(html).scripts]


def homography_pair(sequence: str, image: int, accuracy: float) -> PairResult:
    share = np.full(len(THRESHOLDS), accuracy)
    return PairResult(
        sequence=sequence,
        kind="illumination" if sequence.startswith("i_") else "viewpoint",
        image=image,
        features=(100, 200),
        matches=50,
        mma=share,
        repeatability=share,
        matching_score=share,
        corner_error=0.5,
    )


def save_homographies(folder: Path, label: str, accuracy: float) -> None:
    pairs = (
        homography_pair("i_lamp", 2, 1.0),
        homography_pair("v_wall", 2, accuracy),
    )
    results = HomographyResults(
        label=label, manifest="{}", thresholds=THRESHOLDS, pairs=pairs
    )
    save_results(folder / f"{label}.npz", results)


def test_models_are_next_to_each_other(tmp_path: Path) -> None:
    save_homographies(tmp_path, "one", 0.5)
    save_homographies(tmp_path, "two <b>", 0.25)
    Image.new("RGB", (40, 20)).save(_made(tmp_path / "one") / "worst_1.png")
    (tmp_path / "one" / "worst.json").write_text(
        json.dumps({"worst_1.png": "one: v_wall, 1 and 2, 1234", "gone.png": "x, y"})
    )

    sections = {one.identifier: one.html for one in homography_sections(tmp_path)}

    assert list(sections) == ["hpatches", "hpatches-sequences", "hpatches-worst"]
    charts = figures(sections["hpatches"])
    assert len(charts) == 3
    overall = charts[0]["data"]
    assert [unescape(curve["name"]) for curve in overall] == ["one", "two <b>"]
    assert decoded(overall[0]["x"]) == [1, 2, 3, 5, 10]
    assert set(decoded(overall[0]["y"])) == {0.75}
    rows = cells(sections["hpatches"])
    assert [row[:3] for row in rows][:2] == [
        ["overall", "one", "2"],
        ["overall", "two <b>", "2"],
    ]
    assert cells(sections["hpatches-sequences"])[1][:4] == [
        "v_wall",
        "1",
        "0.500",
        "0.250",
    ]
    assert "one: v_wall, 1 and 2<" in sections["hpatches-worst"]
    assert sections["hpatches-worst"].count("<img ") == 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_relative_poses(tmp_path: Path) -> None:
    pairs = tuple(
        PairPoseResult(
            image1="a",
            image2=name,
            features=(10, 10),
            matches=8,
            epipolar=(0.25, 0.5, 1.0),
            rotation_error=error,
            translation_error=error / 2,
        )
        for name, error in (("b", 4.0), ("c", np.inf))
    )
    run = PairPoseRun(label="r2d2", manifest={}, pairs=pairs)
    save_run(tmp_path / "r2d2.poses.json", run)

    sections = {one.identifier: one.html for one in pair_pose_sections(tmp_path)}

    [row] = cells(sections["pair-poses"])
    # the area below one of two pairs from 4 degrees on: (1 - 4 / t) / 2
    assert row[-3:] == ["0.100", "0.300", "0.400"]
    worst, best = cells(sections["pair-poses-pairs"])
    assert worst[:2] == ["a", "c"] and worst[-2:] == ["", ""]
    assert best[-2:] == ["4.00", "2.00"]


@pytest.mark.parametrize("sections", [homography_sections, pair_pose_sections])
def test_a_folder_without_results_is_refused(sections: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected the --output of kapture_r2d2_"):
        sections(tmp_path)


def logged(folder: Path, losses: list[float]) -> Path:
    folder.mkdir()
    log = RunLog(folder, 0, lambda line: None)
    for step, loss in enumerate(losses, start=1):
        log.training(step, {"learning_rate": 0.1, "loss": loss})
    log.validation(len(losses), {"score": 0.5})
    return folder


def test_runs_share_their_charts_and_the_loss_is_first(tmp_path: Path) -> None:
    runs = [
        logged(tmp_path / "a", [3.0, float("nan"), 1.0]),
        logged(tmp_path / "b", [2.0]),
    ]
    sections = {one.identifier: one.html for one in training_sections(runs)}
    assert list(sections) == ["runs", "log", "validation"]
    loss = figures(sections["log"])[0]
    assert loss["layout"]["yaxis"]["title"]["text"] == "loss"
    first, second = loss["data"]
    assert (first["name"], second["name"]) == ("a", "b")
    assert (decoded(first["x"]), decoded(first["y"])) == ([1, 3], [3, 1])


def test_a_curve_of_many_steps_is_means(tmp_path: Path) -> None:
    steps, values = thinned(range(1, 2501), [1.0, 2.0, 3.0] * 833 + [9.0])
    assert len(steps) == 834
    assert steps[:2].tolist() == [2.0, 5.0]
    assert values[:2].tolist() == [2.0, 2.0] and values[-1] == 9.0


def test_something_else_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="log.csv: found no such file"):
        training_sections([tmp_path])
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="expected 'step'"):
        read_log(tmp_path / "log.csv")


def test_runs_of_one_name_are_distinguished() -> None:
    assert run_labels([Path("x/run"), Path("y/other")]) == ["run", "other"]
    assert run_labels([Path("x/run"), Path("y/run")]) == ["x/run", "y/run"]
