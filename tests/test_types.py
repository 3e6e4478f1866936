"""Features are validated; reports read as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.types import Failure, LocalFeatures, Report, duration


def make_features(count: int = 4, dim: int = 3, **changes: Any) -> LocalFeatures:
    arrays = {
        "keypoints": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        "scales": np.full(count, 32, np.float32),
        "scores": np.linspace(0.1, 0.9, count, dtype=np.float32),
        "descriptors": np.eye(count, dim, dtype=np.float32),
    }
    return LocalFeatures(**{**arrays, "image_size": (64, 48), **changes})


@pytest.mark.parametrize("count", [0, 1, 4])
def test_length_is_the_number_of_keypoints(count: int) -> None:
    assert len(make_features(count)) == count


@pytest.mark.parametrize(
    "field, value",
    [
        ("keypoints", np.zeros((4, 3), np.float32)),
        ("keypoints", np.zeros((5, 2), np.float32)),
        ("keypoints", np.zeros(4, np.float32)),
        ("keypoints", np.zeros((4, 2))),
        ("keypoints", np.zeros((4, 2), np.float16)),
        ("scales", np.zeros((4, 1), np.float32)),
        ("scales", np.zeros(3, np.float32)),
        ("scores", np.zeros(5, np.float32)),
        ("scores", np.zeros(4, np.int64)),
        ("descriptors", np.zeros((3, 3), np.float32)),
        ("descriptors", np.zeros(4, np.float32)),
        ("descriptors", np.zeros((4, 3, 1), np.float32)),
        ("descriptors", np.zeros((4, 3), np.int8)),
        ("descriptors", np.zeros((4, 3))),
    ],
)
def test_arrays_that_disagree_are_refused(field: str, value: Any) -> None:
    with pytest.raises(FeatureFormatError) as caught:
        make_features(**{field: value})
    assert "found" in str(caught.value) and "expected" in str(caught.value)
    if field != "keypoints" or value.shape[0] == 4:
        assert str(caught.value).startswith(field)


def test_features_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_features().scores = np.zeros(4, np.float32)  # type: ignore[misc]


def test_best_first_sorts_every_field_and_keeps_ties() -> None:
    scores = np.array([0.2, 0.9, 0.2, 0.5], np.float32)
    features = make_features(scores=scores, scales=np.arange(4, dtype=np.float32))
    ranked = features.best_first()
    order = [1, 3, 0, 2]
    for field in ("keypoints", "scales", "scores", "descriptors"):
        np.testing.assert_array_equal(
            getattr(ranked, field), getattr(features, field)[order]
        )
    np.testing.assert_array_equal(features.scores, scores)
    assert ranked.image_size == features.image_size
    assert len(make_features(0).best_first()) == 0


def test_keypoints_with_scale() -> None:
    features = make_features()
    rows = features.keypoints_with_scale
    assert rows.shape == (4, 3) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, :2], features.keypoints)
    np.testing.assert_array_equal(rows[:, 2], features.scales)
    assert make_features(0).keypoints_with_scale.shape == (0, 3)


@pytest.fixture
def report() -> Report:
    return Report(
        stage="extract",
        unit="photograph",
        done=3,
        skipped=2,
        failed=(Failure(name="a b.jpg", reason="truncated"),),
        seconds=1.23456,
        outputs=(Path("out/features"),),
        details={"precision": "bf16"},
        warnings=("2 files were left out",),
    )


def test_report_as_json_and_text(report: Report) -> None:
    assert json.loads(json.dumps(report.to_json())) == {
        "stage": "extract",
        "unit": "photograph",
        "done": 3,
        "skipped": 2,
        "failed": [{"name": "a b.jpg", "reason": "truncated"}],
        "warnings": ["2 files were left out"],
        "seconds": 1.235,
        "outputs": ["out/features"],
        "precision": "bf16",
    }
    first, *others = report.to_text().splitlines()
    assert first == "extract: 3 photographs, 2 already done, 1 failed (1.2 s)"
    text = "\n".join(others)
    assert "precision: bf16" in text and "warning: 2 files were left out" in text
    assert "a b.jpg: truncated" in text and "out/features" in text


@pytest.mark.parametrize(
    "done, skipped, unit, summary, text",
    [
        (0, 0, "query", "", "0 queries"),
        (1, 0, "query", "", "1 query"),
        (0, 2, "query", "", "2 queries, already done"),
        (3, 1, "query", "", "3 queries, 1 already done"),
        (3, 1, "match", "all good", "3 matches, 1 already done, all good"),
        (400, 3, "", "20 photographs: 19 in the map", "20 photographs: 19 in the map"),
        (0, 9, "", "2 photographs", "2 photographs, already done"),
    ],
)
def test_work_in_words(
    done: int, skipped: int, unit: str, summary: str, text: str
) -> None:
    made = make_report(done=done, skipped=skipped, summary=summary, unit=unit)
    assert made.work() == text
    assert made.to_text() == f"localize: {text} (0.1 s)"


def make_report(**changes: Any) -> Report:
    values: dict[str, Any] = {
        "stage": "localize",
        "done": 1,
        "skipped": 0,
        "failed": (),
        "seconds": 0.1,
        "outputs": (),
    }
    return Report(**(values | changes))


def test_details_in_words_with_units_and_nothing_of_nothing() -> None:
    details = {
        "mean_reprojection_error": 0.75432,
        "empty": [],
        "absent": None,
        "none_of_them": 0,
        "nothing": {"below": {}},
        "images": [4, 2],
        "in_turn": True,
        "estimates": {"a_b": {"median_position": 0.0056577, "recall": {"5 m": 1}}},
    }
    assert make_report(details=details).to_text().splitlines()[1:] == [
        "  mean reprojection error: 0.754 px",
        "  images: 4, 2",
        "  in turn: yes",
        "  estimates:",
        "    a_b:",
        "      median position error: 0.00566 m",
        "      recall:",
        "        5 m: 100 %",
    ]


def test_a_run_of_stages_ends_in_a_table_of_them() -> None:
    stages = (
        make_report(stage="match", unit="pair", done=66, seconds=83),
        make_report(stage="localize", unit="query", done=0, skipped=4),
    )
    whole = make_report(stage="pipeline", unit="stage", done=2, stages=stages)
    assert whole.to_text().splitlines() == [
        "pipeline: 2 stages (0.1 s)",
        "  match     66 pairs                 1 min 23 s",
        "  localize  4 queries, already done       0.1 s",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
