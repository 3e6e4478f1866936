"""MATLAB files of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.mat import read_mat_settings, write_mat
from tests.scenes.features import random_features


def test_vectors_are_columns(tmp_path: Path) -> None:
    features = random_features(7)
    write_mat(tmp_path / "a.mat", features)
    fields = loadmat(tmp_path / "a.mat")
    np.testing.assert_array_equal(fields["keypoints"], features.keypoints_with_scale)
    assert fields["keypoints"].dtype == np.float32
    assert fields["descriptors"].shape == (7, 128)
    assert fields["scores"].shape == (7, 1)
    assert fields["imsize"].tolist() == [[2048], [1536]]


def test_other_files_have_no_settings_or_are_reported(tmp_path: Path) -> None:
    """Nor have ours that are cut before them: none is overwritten without --force."""
    path = tmp_path / "a.mat"
    for compress in (False, True):
        savemat(path, {"keypoints": np.ones((2, 3))}, do_compression=compress)
        assert read_mat_settings(path) == ""
    for content in (b"", b"PK\x03\x04", b"text"):
        path.write_bytes(content)
        with pytest.raises(FeatureFormatError, match="a.mat: cannot read as a MATLAB"):
            read_mat_settings(path)


def test_a_file_cut_in_its_settings_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_mat(path, random_features(3, dim=8), '{"weights": "é日本"}')
    data = path.read_bytes()
    name_end = data.rindex(b"settings") + len("settings")
    for length in range(name_end + 1, data.rindex(b"}")):
        path.write_bytes(data[:length])
        with pytest.raises(FeatureFormatError, match=r"a\.mat"):
            read_mat_settings(path)


def test_damage_is_an_error_that_names_the_file_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_mat(path, random_features(3, dim=4), '{"k": "é"}')
    data, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(500):
        damaged = bytearray(data)
        for position in rng.integers(len(data) - 40, len(data), size=3):
            damaged[position] = rng.choice([0, 1, 8, 20, 127, 255, rng.integers(256)])
        path.write_bytes(damaged)
        try:
            read_mat_settings(path)
        except FeatureFormatError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 50
