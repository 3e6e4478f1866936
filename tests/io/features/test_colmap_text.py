"""COLMAP's text features."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.colmap_text import write_colmap_text
from r2d2_kapture.types import LocalFeatures
from tests.scenes.features import random_features, read_colmap_text


def test_written_values_by_hand(tmp_path: Path) -> None:
    descriptor = np.zeros((1, 128), np.float32)
    descriptor[0, :2] = [0.28, -0.96]
    features = LocalFeatures(
        keypoints=np.array([[0, 10.25]], np.float32),
        scales=np.array([48], np.float32),
        scores=np.ones(1, np.float32),
        descriptors=descriptor,
        image_size=(64, 48),
    )
    write_colmap_text(tmp_path / "a.jpg.txt", features)
    header, row = (tmp_path / "a.jpg.txt").read_text().splitlines()
    values = [float(word) for word in row.split()]
    assert header == "1 128"
    assert len(values) == 132
    # the centre of the first pixel is 0.5 in COLMAP; a side of 48 is 12 sigma of 4
    assert values[:4] == [0.5, 10.75, 4.0, 0.0]
    assert values[4:6] == [163, 5]  # 127.5 * 1.28 = 163.2 and 127.5 * 0.04 = 5.1
    assert set(values[6:]) == {128}


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("name", ["a.jpg.txt", "seq 1/été b.jpg.txt"])
def test_round_trip(tmp_path: Path, count: int, name: str) -> None:
    path = tmp_path / name
    features = random_features(count)
    write_colmap_text(path, features)
    assert os.listdir(path.parent) == [path.name]
    keypoints, scales, descriptors = read_colmap_text(path)
    assert keypoints.shape == (count, 2)
    assert descriptors.shape == (count, 128)
    np.testing.assert_allclose(keypoints, features.keypoints, atol=3e-4)
    np.testing.assert_allclose(scales, features.scales, atol=1e-3)
    similarity = (descriptors * features.descriptors).sum(axis=1)
    assert (similarity > 0.995).all()
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)


def test_nearest_neighbours_survive_the_bytes(tmp_path: Path) -> None:
    features, others = random_features(60), random_features(300, seed=1)
    write_colmap_text(tmp_path / "a.txt", features)
    _, _, descriptors = read_colmap_text(tmp_path / "a.txt")
    before = (features.descriptors @ others.descriptors.T).argmax(axis=1)
    after = (descriptors @ others.descriptors.T).argmax(axis=1)
    assert (before == after).mean() > 0.9


def test_other_dimension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureFormatError, match="512.*only 128"):
        write_colmap_text(tmp_path / "a.txt", random_features(3, dim=512))
    assert os.listdir(tmp_path) == []
