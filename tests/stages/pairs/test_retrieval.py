"""Pairs by global features made of local ones: VLAD, as a kapture type."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    FeatureFormatError,
    OutputError,
)
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.global_features import GlobalFeatureWriter
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.matching.vlad import Vocabulary, Whitening
from r2d2_kapture.stages.pairs import retrieval
from tests.scenes.contents import files_below
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_dataset, write_features
from tests.stages.pair_runs import GALLERY, NAMES, names_in, run


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "mapping", NAMES)


SCENES = {"s0": 0, "s1": 0, "s2": 0, "t0": 1, "t1": 1, "t2": 1}
"""Images of two scenes: three of each."""
WORDS = {"vlad_clusters": 4}
STORES: tuple[Store, ...] = ("tar", "shards")


def scene_features(names: dict[str, int]) -> dict[str, npt.NDArray[np.float32]]:
    """Local features of images: those of their scene, with noise."""
    found = {}
    for seed, (name, scene) in enumerate(names.items()):
        noise = np.random.default_rng(seed).normal(scale=0.02, size=(60, 16))
        rows = unit_rows(60, seed=1000 + scene) + noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found[name] = rows.astype(np.float32)
    return found


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    root = write_dataset(tmp_path / "scenes", list(SCENES))
    return write_features(root, scene_features(SCENES))


def gfeats(root: Path) -> dict[str, bytes]:
    return files_below(root, suffixes=(".gfeat", ".safetensors"))


def test_images_and_queries_of_one_scene_find_each_other(
    scenes: Path, tmp_path: Path
) -> None:
    report = run(scenes, tmp_path / "p.txt", method="local", top_k=2, **WORDS)
    assert {frozenset(pair) for pair in names_in(tmp_path / "p.txt")} == {
        frozenset(pair)
        for scene in ("s", "t")
        for pair in itertools.combinations([f"{scene}{i}" for i in range(3)], 2)
    }
    assert report.details["images_described"] == 6
    query = write_dataset(tmp_path / "query", ["q t", "q s"])
    write_features(query, scene_features({"q t": 1, "q s": 0}))
    run(scenes, tmp_path / "q.txt", query=query, method="local", top_k=3, **WORDS)
    found = names_in(tmp_path / "q.txt")
    assert [query for query, _ in found] == ["q s"] * 3 + ["q t"] * 3
    assert all(query[-1] == image[0] for query, image in found)


def test_descriptors_are_a_kapture_type(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    root = tmp_path / "p_features"
    name = "r2d2_vlad4"
    loaded = kcsv.global_features_from_dir(name, str(root), set(SCENES))
    assert loaded is not None and set(loaded) == set(SCENES)
    assert (loaded.dtype, loaded.dsize, loaded.metric_type) == (np.float32, 64, "L2")
    table = open_feature_table([root], "global_features")
    rows = np.concatenate([table.read(image) for image in SCENES])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    folder = root / "reconstruction/global_features" / name
    assert (folder / "vocabulary.safetensors").is_file()
    assert json.loads((folder / "manifest.json").read_text())["settings"]["seed"] == 0


def test_any_number_of_workers_gives_the_same(scenes: Path, tmp_path: Path) -> None:
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        options = RunOptions(workers=workers)
        run(scenes, folder / "p.txt", method="local", options=options, **WORDS)
    one, four = tmp_path / "1", tmp_path / "4"
    assert gfeats(one / "p_features") == gfeats(four / "p_features")
    assert len(gfeats(one / "p_features")) == 7
    assert (one / "p.txt").read_bytes() == (four / "p.txt").read_bytes()


def test_descriptors_are_shared_between_lists_of_one_vocabulary(
    scenes: Path, tmp_path: Path
) -> None:
    shared = {"global_features_output": tmp_path / "g", "method": "local", **WORDS}
    run(scenes, tmp_path / "p.txt", **shared)
    before = gfeats(tmp_path / "g")
    query = write_dataset(tmp_path / "query", ["q"])
    write_features(query, scene_features({"q": 1}))
    report = run(scenes, tmp_path / "q.txt", query=query, **shared)
    assert report.details["images_described"] == 1
    assert report.details["images_described_before"] == 6
    assert before.items() < gfeats(tmp_path / "g").items()
    before = gfeats(tmp_path / "g")
    with pytest.raises(OutputError, match="seed: 0, not 1"):
        run(scenes, tmp_path / "s.txt", seed=1, **shared)
    assert gfeats(tmp_path / "g") == before
    run(scenes, tmp_path / "s.txt", seed=1, options=RunOptions(force=True), **shared)
    assert gfeats(tmp_path / "g").keys() <= before.keys()
    assert gfeats(tmp_path / "g") != before


@pytest.mark.parametrize("store", STORES)
def test_stored_in_archives_they_are_the_same(
    scenes: Path, tmp_path: Path, store: Store
) -> None:
    settings = {"method": "local", "global_features_output": tmp_path / "g", **WORDS}
    run(scenes, tmp_path / "files.txt", method="local", **WORDS)
    run(scenes, tmp_path / "p.txt", store=store, **settings)
    assert (tmp_path / "p.txt").read_bytes() == (tmp_path / "files.txt").read_bytes()
    assert gfeats(tmp_path / "g").keys() == {
        f"reconstruction/global_features/r2d2_vlad4/{retrieval.VOCABULARY_NAME}"
    }
    again = run(scenes, tmp_path / "again.txt", store=store, **settings)
    assert again.details["images_described_before"] == 6
    write_features(scenes, {"t2": scene_features({"t2": 1})["t2"][:40]})
    changed = run(scenes, tmp_path / "p.txt", store=store, **settings)
    fresh = run(scenes, tmp_path / "fresh.txt", method="local", **WORDS)
    # the vocabulary is another, so all are
    assert changed.details["images_described"] == 6
    assert fresh.done == len(read_pairs(tmp_path / "p.txt"))
    assert (tmp_path / "p.txt").read_bytes() == (tmp_path / "fresh.txt").read_bytes()
    with pytest.raises(OutputError, match=f"--store {store} adds to"):
        run(scenes, tmp_path / "p2.txt", **settings)
    run(scenes, tmp_path / "p2.txt", options=RunOptions(replace=True), **settings)
    assert len(gfeats(tmp_path / "g")) == 7


@pytest.mark.parametrize("store", STORES)
def test_a_run_killed_in_an_archive_resumes(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    settings = {"method": "local", "store": store, **WORDS}
    run(scenes, tmp_path / "whole.txt", **settings)
    written = []

    def write(writer: GlobalFeatureWriter, image: str, row: object) -> None:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(image)
        write_row(writer, image, row)  # type: ignore[arg-type]

    write_row = GlobalFeatureWriter.write
    with monkeypatch.context() as patch:
        patch.setattr(GlobalFeatureWriter, "write", write)
        with pytest.raises(KeyboardInterrupt):
            run(scenes, tmp_path / "p.txt", **settings)
    report = run(scenes, tmp_path / "p.txt", **settings)
    assert report.details["images_described_before"] == 4
    assert (tmp_path / "p.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()


def test_images_without_keypoints_have_no_pairs(scenes: Path, tmp_path: Path) -> None:
    write_features(scenes, {**scene_features(SCENES), "t2": unit_rows(0)})
    report = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert report.failed == ()
    assert report.details["images_of_zeros"] == 1
    assert {name for pair in names_in(tmp_path / "p.txt") for name in pair} == (
        set(SCENES) - {"t2"}
    )


def test_images_without_local_features_are_named_once(
    scenes: Path, tmp_path: Path
) -> None:
    (scenes / "reconstruction/descriptors/r2d2/t2.desc").unlink()
    for described in (5, 0):
        report = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
        assert [failure.name for failure in report.failed] == ["t2"]
        assert report.details["images_described"] == described


def test_a_repaired_image_takes_part_in_the_vocabulary(
    scenes: Path, tmp_path: Path
) -> None:
    run(scenes, tmp_path / "whole.txt", method="local", **WORDS)
    (scenes / "reconstruction/descriptors/r2d2/t2.desc").unlink()
    run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    write_features(scenes, scene_features(SCENES))
    again = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert again.failed == ()
    assert gfeats(tmp_path / "p_features") == gfeats(tmp_path / "whole_features")
    assert (tmp_path / "p.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()


def test_fewer_images_than_clusters(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "p.txt", method="local", vlad_clusters=50, top_k=2)
    assert len(names_in(tmp_path / "p.txt")) == 6


def test_fewer_local_features_than_clusters(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--vlad-clusters 361: found 360 local feat"):
        run(scenes, tmp_path / "p.txt", method="local", vlad_clusters=361)
    assert not (tmp_path / "p.txt").exists()


def test_no_local_features(mapping: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no keypoints, .*--features"):
        run(mapping, tmp_path / "p.txt", method="local")


def test_a_broken_vocabulary(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    path = next(tmp_path.rglob("vocabulary.safetensors"))
    path.write_bytes(b"something else")
    with pytest.raises(FeatureFormatError, match="not a vocabulary"):
        run(scenes, tmp_path / "p.txt", method="local", **WORDS)


def test_enough_images_are_whitened(tmp_path: Path) -> None:
    names = {f"{i:02d}": i % 4 for i in range(12)}
    root = write_dataset(tmp_path / "m", list(names))
    write_features(root, scene_features(names))
    run(root, tmp_path / "p.txt", method="local", vlad_dim=3, top_k=2, **WORDS)
    table = open_feature_table([tmp_path / "p_features"], "global_features")
    assert table.dsize == 3
    found = names_in(tmp_path / "p.txt")
    assert found and all(names[a] == names[b] for a, b in found)


def test_the_vocabulary_is_learned_on_a_sample(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "VOCABULARY_IMAGES", 4)
    monkeypatch.setattr(retrieval, "VOCABULARY_DESCRIPTORS", 40)
    with pytest.raises(ConfigError, match="found 40 local features in 4 mapping"):
        run(scenes, tmp_path / "p.txt", method="local", vlad_clusters=41)
    report = run(scenes, tmp_path / "q.txt", method="local", vlad_clusters=8)
    assert report.details["images_described"] == 6


def test_images_beyond_the_sample_teach_nothing(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features may change, or be absent, and only their descriptors follow."""
    monkeypatch.setattr(retrieval, "VOCABULARY_IMAGES", 3)
    run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    before = gfeats(tmp_path / "p_features")
    sample = {sorted(SCENES)[i] for i in retrieval.draw(6, 3, 0)}
    other = next(name for name in SCENES if name not in sample)
    (scenes / f"reconstruction/descriptors/r2d2/{other}.desc").unlink()
    report = run(scenes, tmp_path / "a.txt", method="local", **WORDS)
    assert [failure.name for failure in report.failed] == [other]
    found = gfeats(tmp_path / "a_features")
    assert found.items() < before.items() and len(found) == len(before) - 1

    rows = scene_features(SCENES)
    write_features(scenes, {other: rows[other][:50]})
    monkeypatch.setattr(retrieval, "learn_vocabulary", None)
    report = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert report.details["images_described"] == 1
    after = gfeats(tmp_path / "p_features")
    (changed,) = {name for name in before if before[name] != after[name]}
    assert changed.endswith(f"{other}.gfeat")


def test_a_vocabulary_reads_as_it_was_written(tmp_path: Path) -> None:
    """In whatever order its arrays lie in memory."""
    whitening = Whitening(
        mean=unit_rows(1)[0], components=np.asfortranarray(unit_rows(3, seed=1))
    )
    written = Vocabulary(centres=unit_rows(4, seed=2)[:, ::2], whitening=whitening)
    (tmp_path / "v").write_bytes(retrieval.vocabulary_to_bytes(written))
    found = retrieval.read_vocabulary(tmp_path / "v")
    np.testing.assert_array_equal(found.centres, written.centres)
    assert found.whitening is not None
    np.testing.assert_array_equal(found.whitening.mean, whitening.mean)
    np.testing.assert_array_equal(found.whitening.components, whitening.components)


def test_local_retrieval_agrees_with_global(shared: Path, tmp_path: Path) -> None:
    """3 of the best 5 of each query at least; by chance it would be 2.1."""
    root = shared / GALLERY
    found = {}
    for method, features in (
        ("global", "global_features/AP-GeM-LM18"),
        ("local", "local_features/r2d2_500"),
    ):
        output = tmp_path / f"{method}.txt"
        run(
            root / "mapping",
            output,
            query=root / "query",
            method=method,
            top_k=5,
            features=[root / features],
        )
        found[method] = read_pairs(output)
    queries = {pair.image1 for pair in found["global"]}
    assert len(queries) == 4
    common = {
        query: len(
            {p.image2 for p in found["global"] if p.image1 == query}
            & {p.image2 for p in found["local"] if p.image1 == query}
        )
        for query in queries
    }
    assert min(common.values()) >= 3 and sum(common.values()) >= 14
