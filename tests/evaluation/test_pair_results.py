"""Results of pairs come back from JSON, and their means are right."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.pair_poses import PairPoseResult
from r2d2_kapture.evaluation.pair_results import (
    PairPoseRun,
    load_block,
    load_run,
    save_block,
    save_run,
)

PAIRS = (
    PairPoseResult(
        image1="a b.jpg",
        image2="é.jpg",
        features=(10, 20),
        matches=4,
        epipolar=(0.25, 0.5, 1.0),
        rotation_error=1.0,
        translation_error=2.5,
    ),
    PairPoseResult(
        image1="a b.jpg",
        image2="c.jpg",
        features=(10, 60),
        matches=0,
        epipolar=(0.0, 0.0, 0.0),
        rotation_error=math.inf,
        translation_error=math.inf,
    ),
)


def test_a_run_comes_back_with_means_over_pairs(tmp_path: Path) -> None:
    run = PairPoseRun(label="m", manifest={"settings": {"seed": 1}}, pairs=PAIRS)
    save_run(tmp_path / "r.json", run)
    assert load_run(tmp_path / "r.json") == run
    assert "Infinity" not in (tmp_path / "r.json").read_text()
    values = PairPoseRun(label="m", manifest={}, pairs=PAIRS).values
    assert (values["pairs"], values["features"], values["matches"]) == (2, 30, 2)
    assert values["epipolar@1"] == pytest.approx(0.125)
    assert values["epipolar@3"] == pytest.approx(0.5)
    # pose errors of 2.5 degrees and none found
    assert values["AUC@5"] == pytest.approx(0.25)
    assert values["AUC@20"] == pytest.approx(0.4375)


def test_finished_pairs_come_back_unless_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    assert load_block(path, "abc") is None
    save_block(path, PAIRS, "abc")
    assert load_block(path, "abc") == list(PAIRS)
    assert load_block(path, "other") is None
    path.write_text(path.read_text()[:-9])
    assert load_block(path, "abc") is None


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"

    def assert_refused() -> None:
        with pytest.raises(FeatureFormatError, match="r.json"):
            load_run(path)

    assert_refused()
    save_run(path, PairPoseRun(label="m", manifest={}, pairs=PAIRS))
    content = json.loads(path.read_text())
    for text in ("", "{}", '{"format": "other", "pairs": [1]}'):
        path.write_text(text)
        assert_refused()
    impossible: list[dict[str, object]] = [
        {"epipolar": [0.5, 1.0]},
        {"epipolar": [0.5, 1.0, math.nan]},
        {"epipolar": [0.5, 1.0, 1.5]},
        {"rotation_error": math.nan},
        {"translation_error": -1.0},
        {"features": [math.inf, 1]},
    ]
    for change in impossible:
        first, *others = content["pairs"]
        path.write_text(json.dumps(content | {"pairs": [first | change, *others]}))
        assert_refused()
