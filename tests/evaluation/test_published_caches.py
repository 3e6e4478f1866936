"""Published caches give the means that they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.published_caches import read_published_cache
from r2d2_kapture.evaluation.summary import OVERALL, read_summary


def write_cache(path: Path, **changes: Any) -> Path:
    """Two illumination sequences and one of viewpoint, two pairs each."""
    parts: dict[str, Any] = {
        "i": {1: 2.0, 3: 3.0},
        "v": {1: 0.5, 3: 1.0},
        "kinds": np.array(["i", "i", "i", "i", "v", "v"]),
        "features": np.array([10, 10, 10, 20, 20, 20, 60, 90, 90]),
        "matches": np.array([4, 4, 6, 6, 7, 9]),
        **changes,
    }
    array = np.empty(3, dtype=object)
    counts = [parts["kinds"], parts["features"], parts["matches"]]
    array[:] = [parts["i"], parts["v"], counts]
    np.save(path, array)
    return path


def test_means_of_each_kind(tmp_path: Path) -> None:
    groups = read_published_cache(write_cache(tmp_path / "a.npy"))
    illumination, viewpoint = groups["illumination"], groups["viewpoint"]
    assert (illumination.pairs, viewpoint.pairs) == (4, 2)
    assert illumination.accuracy == {1: 0.5, 3: 0.75}
    assert viewpoint.accuracy == {1: 0.25, 3: 0.5}
    assert (illumination.features, viewpoint.features) == (15, 80)
    assert (illumination.matches, viewpoint.matches) == (5, 8)


def test_the_overall_mean_weighs_every_pair_equally(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "method.variant.npy")
    summary = read_summary(path)
    assert (summary.label, summary.published) == ("method.variant", True)
    overall = summary.groups[OVERALL]
    assert overall.pairs == 6
    assert overall.curves["MMA"] == pytest.approx({1: 2.5 / 6, 3: 4 / 6})
    assert overall.matches == pytest.approx(36 / 6)
    assert overall.features == pytest.approx((6 * 15 + 3 * 80) / 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": np.array(["i"] * 6)},
        {"kinds": np.array(["i", "v"])},
        {"features": np.array([1, 2])},
        {"matches": "none"},
        {"i": [1, 2]},
        {"v": {1: "many"}},
        {"v": {1: 0.5}},
        {"v": {1: 0.5, 5: 1.0}},
        {"v": {1: np.nan, 3: 1.0}},
        {"i": {1: 2.0, 3: 5.0}},
        {"i": {1: -1.0, 3: 3.0}},
        {"i": {np.nan: 2.0, 3: 3.0}},
        {"features": np.array([np.nan] * 9)},
        {"matches": np.array([4, 4, 6, 6, 7, np.inf])},
        {"matches": np.array([4, 4, 6, 6, 7, -9])},
    ],
)
def test_other_content_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(FeatureFormatError, match="a.npy"):
        read_published_cache(write_cache(tmp_path / "a.npy", **changes))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("r2d2_WAF_N16.size-256-1024", 0.687),
        ("r2d2_WAF_N16.scale-0.3-1", 0.718),
        ("r2d2_WASF_N16.size-256-1024", 0.721),
        ("r2d2_WASF_N16.scale-0.3-1", 0.758),
        ("r2d2_W_N16.scale-0.3-1", 0.699),
    ],
)
def test_the_published_figures(shared: Path, name: str, accuracy: float) -> None:
    path = shared / "reference" / "hpatches_caches" / f"{name}.npy"
    overall = read_summary(path).groups[OVERALL]
    assert round(overall.curves["MMA"][3], 3) == accuracy
    assert overall.pairs == 540
