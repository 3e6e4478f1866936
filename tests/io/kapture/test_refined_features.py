"""Refined keypoints with the descriptors of those that they were refined from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.refined_features import (
    extracted_type,
    refined_type,
    with_extracted,
)
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features, write_rows

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
"""What write_features writes."""
MOVED = ROWS + np.array([0.25, -0.5, 0], np.float32)


def write_refined(root: Path, rows: dict[str, np.ndarray]) -> None:
    write_rows(
        root / "reconstruction/keypoints/points_refined",
        "keypoints",
        rows,
        fields="points_refined, float32, 3",
    )


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    """Refined keypoints of a map image, and the extracted ones of a query too."""
    extracted, refined = tmp_path / "features", tmp_path / "refined"
    rows = {"map.jpg": unit_rows(2), "query.jpg": unit_rows(2, seed=1)}
    write_features(extracted, rows, name="points")
    write_refined(refined, {"map.jpg": MOVED})
    return [refined, extracted]


def test_a_type_is_refined_once() -> None:
    assert refined_type("r2d2") == refined_type("r2d2_refined") == "r2d2_refined"
    assert extracted_type("r2d2_refined") == extracted_type("r2d2") == "r2d2"


def test_descriptors_stay_where_they_are(roots: list[Path]) -> None:
    tables = open_local_features(roots, "points_refined")
    found = tables.read("map.jpg", (64, 48))
    np.testing.assert_array_equal(found.keypoints, MOVED[:, :2])
    np.testing.assert_array_equal(found.scales, ROWS[:, 2])
    np.testing.assert_allclose(found.descriptors, unit_rows(2), atol=1e-6)
    with pytest.raises(FeatureFormatError, match="'query.jpg': found no keypoints"):
        tables.read("query.jpg", (64, 48))


def test_images_without_refined_keypoints_have_the_extracted_ones(
    roots: list[Path],
) -> None:
    table = open_feature_table(roots, "keypoints", "points_refined")
    both = with_extracted(table, roots)
    assert (table.image_names, both.type_name) == (["map.jpg"], "points_refined")
    np.testing.assert_array_equal(both.read("map.jpg"), MOVED)
    np.testing.assert_array_equal(both.read("query.jpg"), ROWS)
    extracted = open_feature_table(roots, "keypoints", "points")
    assert with_extracted(extracted, roots) is extracted


def test_other_numbers_of_keypoints_are_refused(
    roots: list[Path],
) -> None:
    write_refined(roots[0], {"map.jpg": MOVED[:1]})
    tables = open_local_features(roots, "points_refined")
    with pytest.raises(FeatureFormatError, match="1 keypoints and 2 descriptors"):
        tables.read("map.jpg", (64, 48))


def test_a_name_alone_refines_nothing(roots: list[Path]) -> None:
    """A type of that name, without another that it was refined from."""
    with pytest.raises(DatasetError, match="no descriptors"):
        open_local_features(roots[:1], "points_refined")
