"""Accuracy measured, tabulated and plotted from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import r2d2_kapture as rk
from r2d2_kapture.errors import ConfigError, FeatureFormatError
from tests.stages.benchmark.cases import write_sequences

SETTINGS = {
    "min_size": 32,
    "reliability_thr": 0,
    "repeatability_thr": 0,
    "top_k": 100,
    "gpu": -1,
    "precision": "fp32",
    "worst_pairs": 0,
}


def test_homography_sequences(checkpoint_path: Path, tmp_path: Path) -> None:
    report = rk.evaluate_sequences(
        root=str(write_sequences(tmp_path / "root")),
        output=str(tmp_path / "out"),
        model=str(checkpoint_path),
        label="mine",
        progress=False,
        **SETTINGS,
    )
    assert not report.failed
    table = rk.results_table(report.outputs)
    assert "mine" in table and "MMA@3" in table
    assert table in (tmp_path / "out" / "hpatches.md").read_text(encoding="utf-8")
    figure = rk.plot_results([str(path) for path in report.outputs])
    assert [axes.get_title() for axes in figure.axes] == [
        "Overall",
        "Illumination",
        "Viewpoint",
    ]


def test_pairs_of_known_cameras(
    kapture_root: Path, checkpoint_path: Path, tmp_path: Path
) -> None:
    poses = [f"{time}, cam, 1, 0, 0, 0, {-time}, 0, 0\n" for time in range(5)]
    text = "# kapture format: 1.1\n" + "".join(poses)
    (kapture_root / "sensors" / "trajectories.txt").write_text(text)
    report = rk.evaluate_pairs(
        kapture_root=str(kapture_root),
        output=str(tmp_path / "out"),
        model=str(checkpoint_path),
        label="mine",
        progress=False,
        **SETTINGS,
    )
    assert report.done == 10 and not report.failed
    assert "AUC@5" in rk.results_table(report.outputs)
    (axes,) = rk.plot_results(report.outputs).axes
    (line,) = axes.get_lines()
    assert len(line.get_xdata()) == 10
    assert axes.get_xlabel() == "threshold [degrees]"


def test_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no results"):
        rk.results_table([])
    with pytest.raises(FeatureFormatError, match="a.poses.json"):
        rk.plot_results([tmp_path / "a.poses.json"])
