"""Means over pairs, by what changes and by sequence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.homography import PairResult
from r2d2_kapture.evaluation.results import HomographyResults, save_results
from r2d2_kapture.evaluation.sequences import Kind
from r2d2_kapture.evaluation.summary import OVERALL, read_summary, summarize

THRESHOLDS = (1.0, 3.0)


def pair(sequence: str, kind: Kind, image: int, value: float) -> PairResult:
    return PairResult(
        sequence=sequence,
        kind=kind,
        image=image,
        features=(100, 10 * image),
        matches=image,
        mma=np.array([value, 1.0]),
        repeatability=np.array([value / 2, 0.5]),
        matching_score=np.array([value / 4, 0.25]),
        corner_error=4 * value,
    )


PAIRS = (
    pair("i_a", "illumination", 2, 0.0),
    pair("i_a", "illumination", 3, 0.5),
    pair("v_b", "viewpoint", 2, 1.0),
    dataclasses.replace(pair("c", "other", 2, 1.0), corner_error=np.inf),
)


def test_means_over_pairs() -> None:
    summary = summarize(PAIRS[:3], THRESHOLDS)
    values = summary.values
    assert values["pairs"] == 3
    assert values["MMA@1"] == pytest.approx(0.5)
    assert values["repeatability@1"] == pytest.approx(0.25)
    assert values["M-score@1"] == pytest.approx(0.125)
    assert values["matches"] == pytest.approx(7 / 3)
    # corner errors of 0, 2 and 4 pixels
    assert values["homography@1"] == pytest.approx(1 / 3)
    assert values["homography@3"] == pytest.approx(2 / 3)
    assert values["AUC@5"] == pytest.approx((1 + 3 / 5 + 1 / 5) / 3)
    # images of 100, 20, 30 features and of 100, 20
    assert summarize(PAIRS[:3], THRESHOLDS).features == pytest.approx(270 / 5)


def test_groups_and_sequences_of_a_file(tmp_path: Path) -> None:
    results = HomographyResults(
        label="m",
        manifest='{"settings": {"seed": 3}}',
        thresholds=THRESHOLDS,
        pairs=PAIRS,
    )
    save_results(tmp_path / "r.npz", results)
    summary = read_summary(tmp_path / "r.npz")
    assert (summary.label, summary.published) == ("m", False)
    assert summary.manifest == {"settings": {"seed": 3}}
    assert {name: group.pairs for name, group in summary.groups.items()} == {
        OVERALL: 4,
        "illumination": 2,
        "viewpoint": 1,
        "other": 1,
    }
    assert list(summary.sequences) == ["i_a", "v_b", "c"]
    assert summary.sequences["i_a"].values["MMA@1"] == pytest.approx(0.25)
    # a homography that was not found is no error in any mean
    assert summary.groups["other"].values["AUC@5"] == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text"])
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FeatureFormatError, match="x.npz"):
        read_summary(path)
    path.write_bytes(content)
    with pytest.raises(FeatureFormatError, match="x.npz"):
        read_summary(path)
