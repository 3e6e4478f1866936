"""MATLAB files of features."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.mat import read_mat, read_mat_settings, write_mat
from tests.scenes.features import random_features


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("name", ["a.mat", "seq 1/été b.jpg.r2d2"])
def test_round_trip_under_exactly_that_name(
    tmp_path: Path, count: int, name: str
) -> None:
    path = tmp_path / name
    features = random_features(count)
    write_mat(path, features)
    assert os.listdir(path.parent) == [path.name]
    back = read_mat(path)
    for field in ("keypoints", "scales", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(back, field), getattr(features, field))
    assert back.image_size == features.image_size


def test_vectors_are_columns(tmp_path: Path) -> None:
    features = random_features(7)
    write_mat(tmp_path / "a.mat", features)
    fields = loadmat(tmp_path / "a.mat")
    np.testing.assert_array_equal(fields["keypoints"], features.keypoints_with_scale)
    assert fields["keypoints"].dtype == np.float32
    assert fields["descriptors"].shape == (7, 128)
    assert fields["scores"].shape == (7, 1)
    assert fields["imsize"].tolist() == [[2048], [1536]]


def test_worst_first_comes_back_best_first(tmp_path: Path) -> None:
    fields = {
        "keypoints": np.arange(9, dtype=np.float32).reshape(3, 3),
        "descriptors": np.eye(3, dtype=np.float32),
        "scores": np.array([0.1, 0.2, 0.9], np.float32),
        "imsize": np.array([64, 48]),
    }
    savemat(tmp_path / "a.mat", fields)  # vectors as rows
    back = read_mat(tmp_path / "a.mat")
    np.testing.assert_array_equal(back.keypoints, [[6, 7], [3, 4], [0, 1]])
    np.testing.assert_array_equal(back.scales, [8, 5, 2])
    np.testing.assert_array_equal(back.descriptors, np.eye(3)[::-1])
    assert back.image_size == (64, 48)
    assert read_mat_settings(tmp_path / "a.mat") == ""


@pytest.mark.parametrize("settings", ["", '{"weights": "é日本"}'])
def test_settings_round_trip(tmp_path: Path, settings: str) -> None:
    write_mat(tmp_path / "a.mat", random_features(3), settings)
    assert read_mat_settings(tmp_path / "a.mat") == settings


def test_settings_of_no_file_are_none(tmp_path: Path) -> None:
    assert read_mat_settings(tmp_path / "a.mat") is None


def test_file_cut_anywhere_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_mat(path, random_features(3, dim=8))
    data = path.read_bytes()
    settings_start = data.index(b"settings")
    for length in range(0, settings_start - 60, 9):
        path.write_bytes(data[:length])
        for read in (read_mat, read_mat_settings):
            with pytest.raises(FeatureFormatError, match=r"a\.mat"):
                read(path)


def test_absent_field_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"keypoints": np.ones((2, 3))})
    with pytest.raises(FeatureFormatError, match="no descriptors, imsize, expected"):
        read_mat(tmp_path / "a.mat")


def test_disagreeing_counts_are_reported(tmp_path: Path) -> None:
    fields = {
        "keypoints": np.ones((3, 3)),
        "descriptors": np.ones((2, 8)),
        "scores": np.ones(3),
        "imsize": [4, 4],
    }
    savemat(tmp_path / "a.mat", fields)
    with pytest.raises(FeatureFormatError, match=r"a\.mat: descriptors"):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("compress", [False, True])
def test_damage_never_ends_the_process(tmp_path: Path, compress: bool) -> None:
    """SciPy's reader does: it believes the types and sizes that a file names."""
    path = tmp_path / "a.mat"
    features = random_features(3, dim=4)
    fields = {
        "keypoints": features.keypoints_with_scale,
        "descriptors": features.descriptors,
        "scores": features.scores,
        "imsize": [64, 48],
        "settings": "{}",
    }
    savemat(path, fields, do_compression=compress)
    code = """
import sys
from pathlib import Path
import numpy as np
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.mat import read_mat, read_mat_settings
path, rng, refused = Path(sys.argv[1]), np.random.default_rng(0), 0
data = path.read_bytes()
np.seterr(all="ignore")
for _ in range(500):
    damaged = bytearray(data)
    for position in rng.integers(116, len(data), size=3):
        damaged[position] = rng.choice([0, 1, 8, 20, 127, 255, rng.integers(256)])
    path.write_bytes(damaged)
    for read in (read_mat, read_mat_settings):
        try:
            read(path)
        except FeatureFormatError as error:
            assert str(error).startswith(str(path)), error
            refused += 1
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 100
