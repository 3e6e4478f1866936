"""What a pipeline leaves for its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.stages import pipeline
from r2d2_kapture.stages.run_record import read_stages, with_earlier_work
from tests.scenes.pipeline import PipelineScene

CONFIG = PipelineConfig(
    query_pairs=PairsConfig(method="exhaustive"),
    match=MatchConfig(matcher=MutualNearestConfig(ratio=0.97)),
)


def stage(done: int, seconds: float, name: str = "extract") -> dict[str, Any]:
    return {"stage": name, "outputs": ["features"], "done": done, "seconds": seconds}


def test_a_resumed_run_keeps_inputs_settings_and_the_times_of_work(
    tmp_path: Path,
) -> None:
    scene = PipelineScene(tmp_path)
    output = tmp_path / "work"

    def saved() -> dict[str, Any]:
        pipeline.run(
            CONFIG,
            mapping=scene.mapping,
            queries={"queries": scene.query},
            output=output,
            features=[scene.features],
            options=RunOptions(progress=False),
        )
        path = output / pipeline.REPORT_NAME
        return dict(json.loads(path.read_text("utf-8")))

    first = saved()
    assert saved() == first  # nothing is done, and nothing written
    shutil.rmtree(output / "localized")
    second = saved()

    assert first["inputs"]["mapping"] == {
        "path": str(scene.mapping.resolve()),
        "images": 9,
        "cameras": 3,
        "images_with_pose": 9,
    }
    assert first["inputs"]["queries"]["queries"]["images"] == 3
    assert first["inputs"]["features"] == [str(scene.features.resolve())]
    match = first["settings"]["match"]
    assert (match["matcher"], match["ratio"]) == ("mutual_nearest", 0.97)
    assert first["model"] is None
    assert {"r2d2_kapture", "torch", "pycolmap"} <= first["environment"][
        "versions"
    ].keys()
    works = [stage["work"] for stage in first["stages"]]
    assert all(work["done"] for work in works)
    seconds = {stage["stage"]: stage["work"]["seconds"] for stage in first["stages"]}
    assert seconds["map"] > 0 and seconds["localize"] > 0  # listing pairs takes none
    for stage, work in zip(second["stages"], works, strict=True):
        redone = stage["stage"] == "localize"
        assert bool(stage["done"]) == redone, stage["stage"]
        assert (stage["work"] == work) != redone


def test_datasets_that_share_a_folder_keep_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    made = with_earlier_work([stage(20, 9.0), stage(5, 2.0)], path)
    path.write_text(json.dumps({"stages": made}), "utf-8")

    # the second dataset has a new image, and there is a third
    again = with_earlier_work([stage(0, 0.1), stage(1, 0.5), stage(7, 3.0)], path)

    assert [item["work"]["seconds"] for item in again] == [9.0, 0.5, 3.0]


@pytest.mark.parametrize("text", ["", "[]", '{"stages": 3}', '{"stages": [{"a": 1}]}'])
def test_a_broken_report_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, "utf-8")
    assert read_stages(path) == []
