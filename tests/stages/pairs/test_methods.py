"""The ways to choose pairs, and what each says of bad input."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.errors import ConfigError, DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.pairs import ImagePair, read_pairs
from r2d2_kapture.stages.pairs import inputs, similarity
from tests.scenes.kapture_files import write_dataset, write_global_features
from tests.stages.pair_runs import GALLERY, NAMES, QUERIES, names_in, run


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "mapping", NAMES)


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "query", QUERIES)


def ordered(found: list[ImagePair]) -> bool:
    keys = [(pair.image1, -pair.score, pair.image2) for pair in found]
    return keys == sorted(keys)


# exhaustive


def test_exhaustive(mapping: Path, query: Path, tmp_path: Path) -> None:
    report = run(mapping, tmp_path / "pairs.txt")
    assert (report.done, report.skipped, report.failed) == (10, 0, ())
    every = list(itertools.combinations(sorted(NAMES), 2))
    assert names_in(tmp_path / "pairs.txt") == every
    run(mapping, tmp_path / "same.txt", query=mapping)
    assert names_in(tmp_path / "same.txt") == every
    run(mapping, tmp_path / "queries.txt", query=query)
    across = list(itertools.product(sorted(QUERIES), sorted(NAMES)))
    assert names_in(tmp_path / "queries.txt") == across
    alone = write_dataset(tmp_path / "alone", ["a.jpg"])
    assert run(alone, tmp_path / "none.txt").done == 0
    assert names_in(tmp_path / "none.txt") == []


def test_all_with_all_only_where_there_is_memory(
    mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PAIR_BYTES", 3e7)
    with pytest.raises(
        ConfigError,
        match="--method exhaustive: found 10 pairs .*need 0.3 GB.*--memory-gb .0.25",
    ):
        run(mapping, tmp_path / "pairs.txt", memory_gb=0.25)
    assert not (tmp_path / "pairs.txt").exists()
    assert run(mapping, tmp_path / "pairs.txt", memory_gb=0.35).done == 10


# global features


def around(*degrees: float) -> npt.NDArray[np.float32]:
    radians = np.radians(degrees)
    return np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32)


def global_rows(angles: Mapping[str, float]) -> dict[str, npt.NDArray[np.float32]]:
    return {name: around(angle) for name, angle in angles.items()}


def test_queries_and_their_most_similar_mapping_images(
    mapping: Path, query: Path, tmp_path: Path
) -> None:
    angles = dict(zip(NAMES, [0, 20, 50, 90, 170]))
    write_global_features(mapping, global_rows(angles))
    # elsewhere, and not of unit norm
    apart = write_global_features(
        tmp_path / "apart",
        {"q/0.jpg": 7 * around(88), "q/1 2.jpg": 0.2 * around(12)},
    )
    settings = {"query": query, "method": "global", "top_k": 2, "features": [apart]}
    run(mapping, tmp_path / "p.txt", **settings)
    found = read_pairs(tmp_path / "p.txt")
    assert [pair.names for pair in found] == [
        ("q/0.jpg", "Z.jpg"),
        ("q/0.jpg", "sub-é à.jpg"),
        ("q/1 2.jpg", "sub/é à.jpg"),
        ("q/1 2.jpg", "a b.jpg"),
    ]
    expected = np.cos(np.radians([2, 38, 8, 12]))
    np.testing.assert_allclose([pair.score for pair in found], expected, rtol=1e-5)
    described = apart / "reconstruction/global_features/apgem/global_features.txt"
    described.write_text(described.read_text("utf-8").replace("L2", "Hamming"), "utf-8")
    with pytest.raises(FeatureFormatError, match="by 'Hamming', expected L2 or cosine"):
        run(mapping, tmp_path / "p.txt", **settings)


def test_mapping_images_and_their_most_similar(mapping: Path, tmp_path: Path) -> None:
    write_global_features(mapping, global_rows(dict(zip(NAMES, [0, 20, 50, 90, 170]))))
    run(mapping, tmp_path / "p.txt", method="global", top_k=1)
    found = read_pairs(tmp_path / "p.txt")
    assert {frozenset(pair.names) for pair in found} == {
        frozenset(("a b.jpg", "sub/é à.jpg")),
        frozenset(("sub/é à.jpg", "sub-é à.jpg")),
        frozenset(("sub-é à.jpg", "Z.jpg")),
        frozenset(("Z.jpg", "sub/1.jpg")),
    }
    assert ordered(found)
    assert all(pair.image1 < pair.image2 for pair in found)
    run(mapping, tmp_path / "few.txt", method="global", min_score=0.8)
    scores = [pair.score for pair in read_pairs(tmp_path / "few.txt")]
    assert len(scores) == 2 and min(scores) >= 0.8


@pytest.mark.parametrize("with_query", [False, True])
def test_the_same_list_whatever_the_memory(
    mapping: Path,
    query: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_query: bool,
) -> None:
    """Features that are read in blocks, some equal, and one broken."""
    angles = dict(zip([*NAMES, *QUERIES], [0, 20, 20, 90, 170, 20, 40]))
    write_global_features(mapping, global_rows(angles) | {"Z.jpg": around(1, 2)})
    settings = {"method": "global", "top_k": 2, "query": query if with_query else None}
    output = tmp_path / "p.txt"
    first = run(mapping, output, **settings)
    whole = output.read_bytes()
    assert first.done >= 4
    monkeypatch.setattr(similarity, "GB", 100.0)
    for memory in (0.1, 2.0, 7.0):
        report = run(mapping, output, memory_gb=memory, **settings)
        assert output.read_bytes() == whole
        assert (report.done, report.failed) == (0, first.failed)
    for silly in (0.0, -1.0, 0.01, float("nan"), 1e9):
        with pytest.raises(ConfigError, match="--memory-gb: found .*, expected GB"):
            run(mapping, output, memory_gb=silly, **settings)


def test_no_image_with_itself_where_queries_are_mapping_images(
    mapping: Path, tmp_path: Path
) -> None:
    write_global_features(mapping, global_rows(dict(zip(NAMES, range(5)))))
    run(mapping, tmp_path / "p.txt", query=mapping, method="global", top_k=1)
    found = names_in(tmp_path / "p.txt")
    assert all(a != b for a, b in found)
    assert {name for pair in found for name in pair} == set(NAMES)


def test_images_without_global_features_are_named(
    mapping: Path, tmp_path: Path
) -> None:
    rows = global_rows(dict(zip(NAMES[:3], [0, 20, 50])))
    rows["sub/1.jpg"] = around(1, 2)
    write_global_features(mapping, rows)
    report = run(mapping, tmp_path / "p.txt", method="global")
    reasons = {failure.name: failure.reason for failure in report.failed}
    assert set(reasons) == {"Z.jpg", "sub/1.jpg"}
    assert "found no global_features of type 'apgem'" in reasons["Z.jpg"]
    assert "found 2 rows of global features" in reasons["sub/1.jpg"]
    assert len(names_in(tmp_path / "p.txt")) == 3


def test_no_global_features_and_two_types(mapping: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.txt"
    with pytest.raises(DatasetError, match="found no global features, .*--features"):
        run(mapping, output, method="global")
    rows = global_rows(dict(zip(NAMES, range(5))))
    write_global_features(mapping, rows)
    write_global_features(mapping, rows, name="netvlad")
    with pytest.raises(DatasetError, match="--global-features-type"):
        run(mapping, output, method="global")
    run(mapping, output, method="global", global_features_type="netvlad")
    report = json.loads((tmp_path / "p.report.json").read_text("utf-8"))
    assert report["global_features_type"] == "netvlad"


# the real data


def test_the_authors_global_features(shared: Path, tmp_path: Path) -> None:
    root = shared / GALLERY
    features = [root / "global_features/AP-GeM-LM18"]
    report = run(
        root / "mapping",
        tmp_path / "p.txt",
        query=root / "query",
        method="global",
        top_k=5,
        features=features,
    )
    assert (report.done, report.failed) == (20, ())
    table = open_feature_table(features, "global_features")
    for query, found in itertools.groupby(
        read_pairs(tmp_path / "p.txt"), key=lambda pair: pair.image1
    ):
        listed = [(pair.image2, pair.score) for pair in found]
        others = [name for name in table.image_names if name.startswith("training")]
        cosines = {
            name: float(table.read(name)[0] @ table.read(query)[0]) for name in others
        }
        best = sorted(others, key=lambda name: -cosines[name])[:5]
        assert [name for name, _ in listed] == best
        for name, score in listed:
            assert score == pytest.approx(cosines[name], abs=1e-5)
