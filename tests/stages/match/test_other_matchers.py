"""Matchers besides mutual nearest neighbours, through the stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.matching.matcher import build_matcher
from r2d2_kapture.stages import match
from r2d2_kapture.stages.match import InputReader
from r2d2_kapture.types import Report
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features

COUNT = 64
IMAGES = {
    f"{i}.jpg": unit_rows(COUNT) + 0.05 * unit_rows(COUNT, seed=i) for i in range(3)
}
"""Row i of every image describes the same point of one grid."""
GRID = np.stack([*np.indices((8, 8)).reshape(2, -1) * 40, np.full(COUNT, 32)], axis=1)
PAIRS = [("0.jpg", "1.jpg"), ("0.jpg", "2.jpg"), ("1.jpg", "2.jpg")]


def run(features: Path, output: Path, workers: int = 1, **values: object) -> Report:
    listed = output.parent / "pairs.txt"
    listed.write_text("".join(f"{a} {b}\n" for a, b in PAIRS))
    return match.run(
        make_settings(MatchConfig, {"gpu": -1, **values}),
        features=[features],
        pairs=listed,
        output=output,
        options=RunOptions(workers=workers),
    )


@pytest.mark.parametrize(
    "values",
    [
        {"matcher": "dual_softmax", "temperature": 0.1, "min_probability": 0.01},
        {"matcher": "adalam", "local_inliers": 1, "local_confidence": 1.0},
    ],
)
def test_the_stage_matches_as_the_matcher_does(
    tmp_path: Path, values: dict[str, object]
) -> None:
    """For any number of workers; what is there is kept, other settings refused."""
    if values["matcher"] == "adalam":
        pytest.importorskip("kornia")
    features = write_features(tmp_path / "features", IMAGES)
    for name in IMAGES:
        path = features / "reconstruction" / "keypoints" / "r2d2" / f"{name}.kpt"
        path.write_bytes(GRID.astype(np.float32).tobytes())
    assert run(features, tmp_path / "one", **values).details["matches"] > 0
    run(features, tmp_path / "two", workers=2, **values)
    tables = open_local_features([features])
    read = InputReader(tables, torch.device("cpu"), with_keypoints=True)
    matcher = build_matcher(make_settings(MatchConfig, values).matcher)
    for first, second in PAIRS:
        expected = matcher(read(first), read(second))
        for output in (tmp_path / "one", tmp_path / "two"):
            stored = open_matches([output], "r2d2").read(first, second)
            assert stored is not None
            np.testing.assert_array_equal(stored.indices, expected.indices)
            np.testing.assert_allclose(stored.scores, expected.scores, rtol=1e-6)
    assert run(features, tmp_path / "one", **values).done == 0
    with pytest.raises(OutputError, match=f"matcher: {values['matcher']}, not default"):
        run(features, tmp_path / "one")
