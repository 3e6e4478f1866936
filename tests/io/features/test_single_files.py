"""What .r2d2 and MATLAB files of the features of an image have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from r2d2_kapture.io.features.mat import read_mat_settings, write_mat
from r2d2_kapture.io.features.npz import read_npz, read_npz_settings, write_npz
from tests.scenes.features import assert_same_features, random_features, read_mat

FORMATS = [
    (write_mat, read_mat, read_mat_settings),
    (write_npz, read_npz, read_npz_settings),
]


@pytest.mark.parametrize("write, read, read_settings", FORMATS)
@pytest.mark.parametrize("name", ["a.mat", "seq 1/été b.jpg.r2d2", "noSuffix"])
def test_round_trip_under_exactly_that_name(
    tmp_path: Path, write: Any, read: Any, read_settings: Any, name: str
) -> None:
    path = tmp_path / name
    assert read_settings(path) is None
    for count, settings in ((0, ""), (1, '{"weights": "é日本"}'), (50, "")):
        features = random_features(count)
        write(path, features, settings)
        assert os.listdir(path.parent) == [path.name]
        assert_same_features(read(path), features)
        assert read_settings(path) == settings
