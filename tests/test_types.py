"""Features are validated; reports read as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.types import Failure, LocalFeatures, Report


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
        ("descriptors", np.zeros((4, 3), np.uint8)),
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
        done=3,
        skipped=2,
        failed=(Failure(name="a b.jpg", reason="truncated"),),
        seconds=1.23456,
        outputs=(Path("out/features"),),
        details={"precision": "bf16"},
        warnings=("2 files were left out",),
    )


def test_report_as_json(report: Report) -> None:
    assert json.loads(json.dumps(report.to_json())) == {
        "stage": "extract",
        "done": 3,
        "skipped": 2,
        "failed": [{"name": "a b.jpg", "reason": "truncated"}],
        "warnings": ["2 files were left out"],
        "seconds": 1.235,
        "outputs": ["out/features"],
        "precision": "bf16",
    }


def test_report_as_text(report: Report) -> None:
    lines = report.to_text().splitlines()
    assert lines[0] == "extract: 3 done, 2 skipped, 1 failed in 1.2 s"
    text = report.to_text()
    for expected in (
        "precision: bf16",
        "warning: 2 files were left out",
        "a b.jpg: truncated",
        "out/features",
    ):
        assert expected in text
