"""Results on disk come back as they were."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.homography import (
    THRESHOLDS,
    MatchedPair,
    evaluate_sequence,
)
from r2d2_kapture.evaluation.results import (
    HomographyResults,
    load_results,
    load_sequence,
    save_results,
    save_sequence,
)
from r2d2_kapture.evaluation.sequences import HomographySequence
from tests.scenes.features import features_at
from tests.scenes.two_views import H_2_FROM_1, displaced_pair


@pytest.fixture
def pairs() -> list[MatchedPair]:
    """Three pairs, of ten matches, of none, and of ten again."""
    first, second, _ = displaced_pair(np.random.default_rng(0))
    empty = features_at(np.empty((0, 2)), np.empty((0, 16)))
    features = dict(zip(map(Path, "1234"), (first, second, empty, second)))
    sequence = HomographySequence(
        name="a/v_à côté",
        images=tuple(features),
        homographies=(H_2_FROM_1, np.eye(3), np.eye(3)),
    )
    return evaluate_sequence(sequence, features.__getitem__)


@pytest.fixture
def results(pairs: list[MatchedPair]) -> HomographyResults:
    return HomographyResults(
        label="model, top_k=5", manifest="{}", thresholds=THRESHOLDS, pairs=tuple(pairs)
    )


def assert_equal(first: object, second: object, names: set[str]) -> None:
    for name in names:
        one, other = getattr(first, name), getattr(second, name)
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)


def test_results_come_back_as_the_same_bytes(
    results: HomographyResults, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "r.npz"
    save_results(path, results)
    loaded = load_results(path)
    assert (loaded.label, loaded.thresholds) == (results.label, results.thresholds)
    names = {f.name for f in dataclasses.fields(loaded.pairs[0])}
    for one, other in zip(results.pairs, loaded.pairs, strict=True):
        assert_equal(one, other, names)
    assert loaded.pairs[1].corner_error == np.inf
    for name in ("a.npz", "b.npz"):
        save_results(tmp_path / name, results)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_sequence_comes_back_with_its_matches_unless_something_changed(
    pairs: list[MatchedPair], tmp_path: Path, results: HomographyResults
) -> None:
    path = tmp_path / "v.npz"
    save_sequence(path, pairs, "abc")
    loaded = load_sequence(path, "abc")
    assert loaded is not None
    assert [len(pair.points1) for pair in loaded] == [10, 0, 10]
    names = {f.name for f in dataclasses.fields(MatchedPair)}
    for one, other in zip(pairs, loaded, strict=True):
        assert_equal(one, other, names)
    assert load_sequence(path.with_name("none.npz"), "abc") is None
    assert load_sequence(path, "other") is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert load_sequence(path, "abc") is None
    save_results(path, results)
    assert load_sequence(path, "abc") is None


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FeatureFormatError, match="x.npz"):
        load_results(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(FeatureFormatError, match="x.npz"):
        load_results(path)
    with path.open("wb") as file:
        np.savez(file, keypoints=np.zeros((3, 2)))
    with pytest.raises(FeatureFormatError, match="archive of keypoints"):
        load_results(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(FeatureFormatError, match="single array"):
        load_results(path)
    with pytest.raises(FeatureFormatError, match="without an image pair"):
        HomographyResults(label="m", manifest="{}", thresholds=(1.0,), pairs=())
    path = tmp_path / "r.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(FeatureFormatError, match="r.npz: .*'word/document.xml'"):
        load_results(path)


def changed(path: Path, results: HomographyResults, **changes: object) -> Path:
    """Results with other arrays in them."""
    save_results(path, results)
    with np.load(path) as archive:
        arrays: dict[str, object] = dict(archive)
    with path.open("wb") as file:
        np.savez(file, **(arrays | changes))  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": np.arange(1.0, 3)},
        {"thresholds": np.array(1.0)},
        {"thresholds": np.array(["a"] * 10)},
        {"mma": np.zeros((3, 9))},
        {"repeatability": np.zeros((3, 11))},
        {"matching_score": np.zeros((2, 10))},
        {"mma": np.full((3, 10), np.nan)},
        {"repeatability": np.full((3, 10), 1.5)},
        {"matching_score": np.full((3, 10), -0.5)},
        {"corner_error": np.array([1.0, np.nan, 2.0])},
        {"corner_error": np.array([1.0, -1.0, 2.0])},
        {"features": np.full((3, 2), np.nan)},
        {"features": np.full((3, 2), np.inf)},
        {"matches": np.full(3, np.nan)},
        {"image": np.array(2)},
    ],
)
def test_numbers_that_cannot_be_are_refused(
    results: HomographyResults, tmp_path: Path, changes: dict[str, object]
) -> None:
    assert load_results(changed(tmp_path / "r.npz", results)).label == results.label
    with pytest.raises(FeatureFormatError, match="r.npz: not r2d2_kapture"):
        load_results(changed(tmp_path / "r.npz", results, **changes))
