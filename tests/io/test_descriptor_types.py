"""Descriptors of every type in every format: kept as they are, read as unit rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.colmap_text import write_colmap_text
from r2d2_kapture.io.features.hdf5 import read_h5, write_h5
from r2d2_kapture.io.features.mat import write_mat
from r2d2_kapture.io.features.npz import read_arrays, read_npz, write_npz
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.matching.matcher import build_matcher, match_features
from r2d2_kapture.types import DESCRIPTOR_TYPES, LocalFeatures, unit_rows
from tests.scenes.features import random_features

MANIFEST = Manifest(model={"name": "x"}, settings={}, versions={})


def features_of(dtype: str, dim: int = 128) -> LocalFeatures:
    features = random_features(40, dim)
    rows = np.abs(features.descriptors) if dtype == "uint8" else features.descriptors
    scale = 512 if dtype == "uint8" else 1
    return dataclasses.replace(features, descriptors=(scale * rows).astype(dtype))


@pytest.mark.parametrize("dtype", DESCRIPTOR_TYPES)
@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize("dim", [1, 33, 128, 1024])
def test_kapture_keeps_type_and_width(
    tmp_path: Path, dtype: str, tar: bool, dim: int
) -> None:
    features = features_of(dtype, dim)
    kind = FeatureType(
        root=tmp_path,
        keypoints_type="x",
        descriptors_type="x",
        descriptor_dim=dim,
        descriptor_dtype=dtype,
        store="tar" if tar else "files",
    )
    for again in (False, True):
        with open_feature_writer(kind, MANIFEST, RunOptions()) as writer:
            assert writer.is_complete("a.png") == again
            if not again:
                writer.write("a.png", features)
    described = (kind.folder("descriptors") / "descriptors.txt").read_text()
    # kapture itself reads no float16
    stored_type = "uint8" if dtype == "uint8" else "float32"
    assert f"x, {stored_type}, {dim}, x, L2" in described
    tables = open_local_features([tmp_path])
    stored = tables.descriptors.read_stored("a.png")
    assert stored.dtype == stored_type
    np.testing.assert_array_equal(stored, features.descriptors)
    rows = tables.read("a.png", features.image_size).descriptors
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, unit_rows(features.descriptors))


def through_npz(path: Path, features: LocalFeatures) -> LocalFeatures:
    write_npz(path, features)
    assert read_arrays(path)["descriptors"].dtype == features.descriptors.dtype
    return read_npz(path)


def through_h5(path: Path, features: LocalFeatures) -> LocalFeatures:
    write_h5(path, [("a.png", features)])
    return read_h5(path, "a.png")


def through_mat(path: Path, features: LocalFeatures) -> LocalFeatures:
    write_mat(path.with_suffix(".mat"), features)
    rows = loadmat(path.with_suffix(".mat"))["descriptors"]
    return dataclasses.replace(features, descriptors=unit_rows(rows))


@pytest.mark.parametrize("dtype", DESCRIPTOR_TYPES)
@pytest.mark.parametrize("through", [through_npz, through_h5, through_mat])
def test_files_are_read_as_unit_rows(
    tmp_path: Path,
    dtype: str,
    through: Callable[[Path, LocalFeatures], LocalFeatures],
) -> None:
    features = features_of(dtype)
    found = through(tmp_path / "features", features).best_first()
    expected = unit_rows(features.best_first().descriptors)
    assert found.descriptors.dtype == np.float32
    np.testing.assert_allclose(found.descriptors, expected, atol=1e-6)


def test_bytes_are_written_to_colmaps_text_as_they_are(tmp_path: Path) -> None:
    features = features_of("uint8")
    write_colmap_text(tmp_path / "a.txt", features)
    lines = (tmp_path / "a.txt").read_text().splitlines()[1:]
    rows = np.array([line.split()[4:] for line in lines], np.uint8)
    np.testing.assert_array_equal(rows, features.descriptors)


@pytest.mark.parametrize("dtype", DESCRIPTOR_TYPES)
def test_matches_do_not_depend_on_the_type(dtype: str) -> None:
    features = features_of(dtype)
    order = np.random.default_rng(0).permutation(len(features))
    turned = dataclasses.replace(features, descriptors=features.descriptors[order])
    matches = match_features(build_matcher(), features, turned)
    assert matches.indices[:, 1].tolist() == np.argsort(order).tolist()
    np.testing.assert_allclose(matches.scores, 1, atol=2e-3)


@pytest.mark.parametrize("dtype", ["float64", "int8", "int32"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(FeatureFormatError, match=f"descriptors: found {dtype}"):
        features_of(dtype)
