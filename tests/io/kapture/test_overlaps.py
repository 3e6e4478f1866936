"""Folders that hold other rows of one image, or other matches of one pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.match_store import open_match_writer, open_matches
from r2d2_kapture.io.kapture.overlaps import hidden_features, hidden_matches
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.types import PairMatches
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features

MANIFEST = Manifest(model={"name": "nn"}, settings={}, versions={})


@pytest.mark.parametrize("count", [3, 4])
def test_other_rows_of_one_name_are_reported_and_copies_are_not(
    tmp_path: Path, count: int
) -> None:
    rows = {"a": unit_rows(3, seed=1), "b": unit_rows(3, seed=2)}
    one = write_features(tmp_path / "one", rows)
    copy = write_features(tmp_path / "copy", rows, tar=True)
    other = write_features(tmp_path / "two", {"a": unit_rows(count, seed=3)})
    table = open_feature_table([one, copy, one], "descriptors")
    assert hidden_features(table) == ()
    (text,) = hidden_features(open_feature_table([one, copy, other], "descriptors"))
    assert text.startswith("1 images have different descriptors in several")
    assert "'a'; those of the first" in text and str(other) in text


def test_other_matches_of_one_pair_are_reported(tmp_path: Path) -> None:
    for root, row in (("one", 0), ("copy", 0), ("two", 1)):
        matches = PairMatches(
            indices=np.array([[row, row]]), scores=np.ones(1, np.float32)
        )
        with open_match_writer(tmp_path / root, "t", MANIFEST) as writer:
            writer.write("b", "a", matches)
            writer.write("c", root, matches)
    one, copy, two = (tmp_path / root for root in ("one", "copy", "two"))
    assert hidden_matches(open_matches([one, copy], "t")) == ()
    (text,) = hidden_matches(open_matches([copy, two], "t"))
    assert text.startswith("1 pairs have different matches") and "'a, b'" in text


def test_a_name_in_another_unicode_form_is_reported(tmp_path: Path) -> None:
    root = write_features(tmp_path, {"e\u0301.jpg": unit_rows(3)})
    table = open_feature_table([root], "keypoints")
    with pytest.raises(
        FeatureFormatError, match="another Unicode form of .*: rename one"
    ):
        table.read("\u00e9.jpg")
    with pytest.raises(FeatureFormatError, match="or correct its name"):
        table.read("e.jpg")
