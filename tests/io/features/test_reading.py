"""What rows of third-party features mean."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.reading import (
    check_metric,
    columns_warnings,
    is_turned,
    orientations,
    patch_sides,
)
from r2d2_kapture.types import unit_rows

RNG = np.random.default_rng(0)


def test_affine_shapes_are_read_as_colmap_reads_them() -> None:
    rows = RNG.uniform(-3, 3, (20, 6)).astype(np.float32)
    names = ("x", "y", "a11", "a12", "a21", "a22")
    keypoints = [
        pycolmap.FeatureKeypoint(**dict(zip(names, row))) for row in rows.tolist()
    ]
    np.testing.assert_allclose(
        patch_sides(rows), [12 * k.compute_scale() for k in keypoints], rtol=1e-5
    )
    np.testing.assert_allclose(
        orientations(rows), [k.compute_orientation() for k in keypoints], rtol=1e-5
    )


@pytest.mark.parametrize(
    "columns, side, orientation",
    [
        ([], 32.0, 0.0),
        ([48.0], 48.0, 0.0),
        ([2.0, -0.5], 24.0, -0.5),
        ([0.0, -2.0, 2.0, 0.0], 24.0, np.pi / 2),
        ([7.0, 7.0, 7.0], 32.0, 0.0),
        ([7.0] * 6, 32.0, 0.0),
        ([0.0], 32.0, 0.0),
        ([-5.0], 32.0, 0.0),
        ([-1.0, 0.3], 32.0, 0.3),
        ([0.0, 0.0, 0.0, 0.0], 32.0, 0.0),
        ([np.nan], np.nan, 0.0),
    ],
)
def test_columns_by_their_number(
    columns: list[float], side: float, orientation: float
) -> None:
    rows = np.array([[10.0, 20.0, *columns]], np.float32)
    assert patch_sides(rows).dtype == orientations(rows).dtype == np.float32
    np.testing.assert_allclose(patch_sides(rows), [side], rtol=1e-6)
    np.testing.assert_allclose(orientations(rows), [orientation], rtol=1e-6)


def test_columns_that_are_not_read_are_reported() -> None:
    for columns in (1, 5, 7):
        (text,) = columns_warnings("sift", columns)
        assert f"'sift' have {columns} columns" in text
    for columns in (2, 3, 4, 6):
        assert columns_warnings("sift", columns) == ()


def test_metrics_other_than_that_of_unit_vectors_are_refused_by_name() -> None:
    for metric in (None, "L2", "l2", "cosine", " Cosine ", "euclidean"):
        check_metric(metric, "descriptors.txt")
    for metric in ("Hamming", "hamming", "L1", "dot", "unknown", ""):
        expected = f"^d.txt: .* by '{metric}', expected"
        with pytest.raises(FeatureFormatError, match=expected):
            check_metric(metric, "d.txt")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64", "float32"])
def test_descriptors_of_any_dtype_become_unit_rows(dtype: str) -> None:
    rows = RNG.integers(0, 255, (5, 128)).astype(dtype)
    rows[3] = 0
    found = unit_rows(rows)
    assert found.dtype == np.float32
    norms = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(norms, [1, 1, 1, 0, 1], atol=1e-6)
    cosine = (found[0] * rows[0]).sum() / np.linalg.norm(rows[0].astype(float))
    assert cosine == pytest.approx(1)


def test_unit_rows_stay_as_they_are_to_the_bit() -> None:
    rows = RNG.normal(size=(6, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    stored = rows.astype(np.float32)
    np.testing.assert_array_equal(unit_rows(stored), stored)
    stored[2] *= 7
    others = np.arange(6) != 2
    np.testing.assert_array_equal(unit_rows(stored)[others], stored[others])
    assert np.linalg.norm(unit_rows(stored)[2]) == pytest.approx(1)


def test_image_sizes() -> None:
    assert not is_turned((40, 30), (40, 30), "a.jpg")
    assert is_turned((30, 40), (40, 30), "a.jpg")
    with pytest.raises(FeatureFormatError, match="a.jpg: .* 80 x 60 .* has 40 x 30"):
        is_turned((80, 60), (40, 30), "a.jpg")
