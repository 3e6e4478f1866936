"""Features of other tools are read from the files that these write."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.feature_files import (
    feature_path,
    read_feature_file,
    read_h5_features,
)
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.types import LocalFeatures
from tests.scenes.features import assert_same_features, features_at, unit_rows


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "1.ppm"
    Image.new("RGB", (40, 30)).save(path)
    return path


@pytest.fixture
def features() -> LocalFeatures:
    keypoints = np.random.default_rng(0).uniform(0, 30, (7, 2))
    made = features_at(keypoints, unit_rows(7, 8), (40, 30))
    return dataclasses.replace(made, scores=np.linspace(1, 0.5, 7, dtype=np.float32))


@pytest.mark.parametrize("suffix", ["r2d2", ".d2-net", "r2d2.npz"])
def test_archives_of_any_suffix_are_read(
    image: Path, features: LocalFeatures, suffix: str
) -> None:
    path = feature_path(image, suffix)
    assert path.name == f"1.ppm.{suffix.lstrip('.')}"
    write_npz(path, features)
    assert_same_features(read_feature_file(path, image), features)


def test_files_of_d2_net_take_the_size_of_the_image(
    image: Path, features: LocalFeatures
) -> None:
    path = feature_path(image, "d2-net")
    fields = {
        "keypoints": features.keypoints_with_scale,
        "scores": features.scores,
        "descriptors": features.descriptors,
    }
    with path.open("wb") as file:
        np.savez(file, **fields)
    assert_same_features(read_feature_file(path, image), features)


@pytest.mark.parametrize("columns", [2, 3])
def test_files_of_d2_nets_benchmark_keep_their_order(
    image: Path, features: LocalFeatures, columns: int
) -> None:
    path = feature_path(image, "d2-net")
    keypoints = features.keypoints_with_scale[:, :columns]
    with path.open("wb") as file:
        np.savez(file, keypoints=keypoints, descriptors=features.descriptors)
    read = read_feature_file(path, image)
    none = np.zeros_like(features.scores)
    assert_same_features(read, dataclasses.replace(features, scores=none))


def test_an_hdf5_file_without_sizes_and_scores(
    tmp_path: Path, image: Path, features: LocalFeatures
) -> None:
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["1.ppm/keypoints"] = features.keypoints.astype(np.float64)
        file["1.ppm/descriptors"] = (features.descriptors.T * 512).astype(np.float64)
    read = read_h5_features(path, "1.ppm", image)
    assert read.image_size == (40, 30)
    np.testing.assert_array_equal(read.keypoints, features.keypoints)
    np.testing.assert_array_equal(read.scales, np.full(7, 32))
    np.testing.assert_allclose(read.descriptors, features.descriptors, atol=1e-6)
    with pytest.raises(FeatureFormatError, match="image_size"):
        read_h5_features(path, "1.ppm")


def test_worst_first_files_come_back_best_first_and_none_are_a_result(
    image: Path, features: LocalFeatures
) -> None:
    path = feature_path(image, "r2d2")
    reverse = {
        field: getattr(features, field)[::-1]
        for field in ("keypoints", "scales", "scores", "descriptors")
    }
    write_npz(path, dataclasses.replace(features, **reverse))
    assert_same_features(read_feature_file(path, image), features)
    fields = {name: array[:0] for name, array in _fields(features).items()}
    path.write_bytes(_archive(fields | {"imsize": [40, 30]}))
    assert len(read_feature_file(path, image)) == 0


def test_descriptors_are_scaled_to_unit_norm(
    image: Path, features: LocalFeatures
) -> None:
    path = feature_path(image, "sift")
    long = 3 * features.descriptors
    long[2] = 0
    write_npz(path, dataclasses.replace(features, descriptors=long))
    norms = np.linalg.norm(read_feature_file(path, image).descriptors, axis=1)
    np.testing.assert_allclose(norms, [1, 1, 0, 1, 1, 1, 1], atol=1e-6)


def test_features_of_one_hdf5_file(tmp_path: Path, features: LocalFeatures) -> None:
    path = tmp_path / "features.h5"
    write_h5(path, [("v_wall/1.ppm", features)])
    assert_same_features(read_h5_features(path, "v_wall/1.ppm"), features)
    with pytest.raises(FeatureFormatError, match="v_wall/2.ppm"):
        read_h5_features(path, "v_wall/2.ppm")


def test_half_precision_descriptors_of_hloc(
    tmp_path: Path, features: LocalFeatures
) -> None:
    path = tmp_path / "features.h5"
    write_h5(path, [("1.ppm", features)])
    with h5py.File(path, "a") as file:
        del file["1.ppm/descriptors"]
        file["1.ppm/descriptors"] = features.descriptors.T.astype(np.float16)
    read = read_h5_features(path, "1.ppm").descriptors
    np.testing.assert_allclose(read, features.descriptors, atol=1e-3)


def test_unreadable_files_are_named(image: Path, features: LocalFeatures) -> None:
    path = feature_path(image, "d2-net")
    broken = b"PK\x03\x04 broken", b"text", b"MATLAB 5.0 MAT-file"
    for content in (None, b"", *broken):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FeatureFormatError, match="1.ppm.d2-net"):
            read_feature_file(path, image)
    path.write_bytes(_archive({"keypoints": features.keypoints_with_scale}))
    with pytest.raises(FeatureFormatError, match="no descriptors, expected"):
        read_feature_file(path, image)


def _archive(fields: dict[str, Any]) -> bytes:
    stream = BytesIO()
    np.savez(stream, **fields)
    return stream.getvalue()


def _fields(features: LocalFeatures) -> dict[str, Any]:
    return {
        "keypoints": features.keypoints_with_scale.copy(),
        "scores": features.scores.copy(),
        "descriptors": features.descriptors.copy(),
        "imsize": np.array([40.0, 30.0]),
    }


@pytest.mark.parametrize(
    ("field", "place", "message"),
    [
        ("keypoints", (2, 0), "keypoints: found NaN or infinity in 1 of 7 rows"),
        ("keypoints", (2, 2), "scales: found"),
        ("scores", 2, "scores: found"),
        ("descriptors", (2, 5), "descriptors: found"),
        ("imsize", 1, "image size: found"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(
    image: Path, features: LocalFeatures, field: str, place: Any, message: str
) -> None:
    path, fields = feature_path(image, "d2-net"), _fields(features)
    for value in (np.nan, np.inf):
        fields[field][place] = value
        path.write_bytes(_archive(fields))
        with pytest.raises(FeatureFormatError, match=f"1.ppm.d2-net: {message}"):
            read_feature_file(path, image)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("keypoints", "keypoints: found NaN or infinity in 1 of 7 rows"),
        ("scales", "scales: found"),
        ("scores", "scores: found"),
        ("descriptors", "descriptors: found"),
        ("image_size", "image size: found"),
    ],
)
def test_numbers_of_hdf5_that_are_not_finite_are_refused(
    tmp_path: Path, features: LocalFeatures, field: str, message: str
) -> None:
    path = tmp_path / "features.h5"
    write_h5(path, [("v_wall/1.ppm", features)])
    with h5py.File(path, "a") as file:
        values = file[f"v_wall/1.ppm/{field}"][()].astype(np.float64)
        values.flat[1] = np.nan
        del file[f"v_wall/1.ppm/{field}"]
        file[f"v_wall/1.ppm/{field}"] = values
    with pytest.raises(FeatureFormatError, match=f"'v_wall/1.ppm': {message}"):
        read_h5_features(path, "v_wall/1.ppm")


def test_texts_in_hdf5_are_no_features(tmp_path: Path, features: LocalFeatures) -> None:
    path = tmp_path / "features.h5"
    write_h5(path, [("1.ppm", features)])
    with h5py.File(path, "a") as file:
        del file["1.ppm/scores"]
        file["1.ppm/scores"] = "none"
    with pytest.raises(FeatureFormatError, match="'1.ppm'"):
        read_h5_features(path, "1.ppm")


@pytest.mark.filterwarnings("ignore")
def test_damage_is_an_error_that_names_the_file_or_harmless(
    image: Path, features: LocalFeatures
) -> None:
    path = feature_path(image, "d2-net")
    path.write_bytes(_archive(_fields(features)))
    data, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(500):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_feature_file(path, image)
        except FeatureFormatError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 50
