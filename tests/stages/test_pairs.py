"""The stage that chooses pairs: each method, bad input, resume, repeatability."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    FeatureFormatError,
    OutputError,
)
from r2d2_kapture.io.feature_table import open_feature_table
from r2d2_kapture.io.global_features import GlobalFeatureWriter
from r2d2_kapture.io.pairs import ImagePair, read_pairs, write_pairs
from r2d2_kapture.matching.vlad import Vocabulary, Whitening
from r2d2_kapture.stages import pairs, retrieval
from r2d2_kapture.types import Report
from tests.feature_folders import unit_rows, write_features, write_global_features
from tests.poses import numbers, rigid3d, table, write_dataset, write_files

NAMES = ["a b.jpg", "sub/é à.jpg", "sub-é à.jpg", "Z.jpg", "sub/1.jpg"]
QUERIES = ["q/1 2.jpg", "q/0.jpg"]


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "mapping", NAMES)


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "query", QUERIES)


def run(mapping: Path, output: Path, **kwargs: object) -> Report:
    """Run with settings of PairsConfig and arguments of the stage, told by name."""
    names = PairsConfig.__dataclass_fields__.keys()
    settings = {key: kwargs.pop(key) for key in list(kwargs) if key in names}
    return pairs.run(
        PairsConfig(**settings),  # type: ignore[arg-type]
        mapping=mapping,
        output=output,
        **kwargs,  # type: ignore[arg-type]
    )


def names_in(path: Path) -> list[tuple[str, str]]:
    return [pair.names for pair in read_pairs(path)]


def ordered(found: list[ImagePair]) -> bool:
    keys = [(pair.image1, -pair.score, pair.image2) for pair in found]
    return keys == sorted(keys)


# exhaustive


def test_exhaustive(mapping: Path, tmp_path: Path) -> None:
    report = run(mapping, tmp_path / "pairs.txt")
    assert (report.done, report.skipped, report.failed) == (10, 0, ())
    found = names_in(tmp_path / "pairs.txt")
    assert found == list(itertools.combinations(sorted(NAMES), 2))


def test_exhaustive_with_queries(mapping: Path, query: Path, tmp_path: Path) -> None:
    run(mapping, tmp_path / "pairs.txt", query=query)
    assert names_in(tmp_path / "pairs.txt") == list(
        itertools.product(sorted(QUERIES), sorted(NAMES))
    )


def test_queries_that_are_the_mapping_images(mapping: Path, tmp_path: Path) -> None:
    run(mapping, tmp_path / "one.txt", query=mapping)
    run(mapping, tmp_path / "two.txt")
    assert names_in(tmp_path / "one.txt") == names_in(tmp_path / "two.txt")


def test_one_image_has_no_pairs(tmp_path: Path) -> None:
    mapping = write_dataset(tmp_path / "mapping", ["a.jpg"])
    assert run(mapping, tmp_path / "pairs.txt").done == 0
    assert names_in(tmp_path / "pairs.txt") == []


# sequential


def test_sequences_of_each_camera_in_order_of_time(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        sensors="l, , camera, UNKNOWN_CAMERA, 6, 4\nr, , camera, UNKNOWN_CAMERA, 6, 4",
        records_camera="30, l, a\n10, l, c\n20, l, b\n10, r, e\n20, r, d",
    )
    report = run(tmp_path, tmp_path / "p.txt", method="sequential", overlap=1)
    assert report.details["sequences"] == 2
    assert names_in(tmp_path / "p.txt") == [("a", "b"), ("b", "c"), ("d", "e")]
    run(tmp_path, tmp_path / "two.txt", method="sequential", overlap=2)
    scores = {pair.names: pair.score for pair in read_pairs(tmp_path / "two.txt")}
    assert scores[("a", "c")] == 0.5 and scores[("a", "b")] == 1
    run(tmp_path, tmp_path / "l.txt", method="sequential", overlap=1, loop=True)
    assert ("a", "c") in names_in(tmp_path / "l.txt")


def test_images_that_a_rig_takes_together(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        sensors="l, , camera, UNKNOWN_CAMERA, 6, 4\nr, , camera, UNKNOWN_CAMERA, 6, 4",
        records_camera="1, l, l1\n2, l, l2\n1, r, r1\n2, r, r2",
        rigs="rig, l, 1, 0, 0, 0, 0, 0, 0\nrig, r, 1, 0, 0, 0, 1, 0, 0",
    )
    run(tmp_path, tmp_path / "p.txt", method="sequential", overlap=1)
    found = set(names_in(tmp_path / "p.txt"))
    assert found == {("l1", "l2"), ("r1", "r2"), ("l1", "r1"), ("l2", "r2")}


def test_images_with_a_camera_each_are_one_sequence(tmp_path: Path) -> None:
    sensors = "\n".join(f"c{i}, , camera, UNKNOWN_CAMERA, 6, 4" for i in range(4))
    records = "\n".join(f"{i}, c{i}, {i}.jpg" for i in range(4))
    write_files(tmp_path, sensors=sensors, records_camera=records)
    run(tmp_path, tmp_path / "p.txt", method="sequential", overlap=1)
    assert len(names_in(tmp_path / "p.txt")) == 3


# poses


def facing(degrees: float, centre: list[float]) -> pycolmap.Rigid3d:
    return rigid3d(Rotation.from_euler("y", degrees, degrees=True), centre)


def test_near_cameras_that_look_the_same_way(tmp_path: Path) -> None:
    poses = {
        "a": facing(0, [0, 0, 0]),
        "b": facing(10, [1, 0, 0]),
        "c": facing(90, [0.1, 0, 0]),
        "d": facing(0, [8, 0, 0]),
    }
    mapping = write_dataset(tmp_path / "m", list("abcd"), poses)
    run(mapping, tmp_path / "p.txt", method="poses", top_k=1)
    found = read_pairs(tmp_path / "p.txt")
    assert [pair.names for pair in found] == [("a", "b"), ("b", "d")]
    assert [pair.score for pair in found] == pytest.approx([1 / 2, 1 / 8], rel=1e-5)
    run(mapping, tmp_path / "near.txt", method="poses", max_distance=2.0)
    assert names_in(tmp_path / "near.txt") == [("a", "b")]
    run(mapping, tmp_path / "wide.txt", method="poses", max_angle=180.0)
    assert len(names_in(tmp_path / "wide.txt")) == 6


def test_queries_near_mapping_cameras(tmp_path: Path) -> None:
    mapping = write_dataset(
        tmp_path / "m",
        ["a", "b"],
        {"a": facing(0, [0, 0, 0]), "b": facing(0, [5, 0, 0])},
    )
    query = write_dataset(
        tmp_path / "q",
        ["p", "q"],
        {"p": facing(5, [4, 0, 0]), "q": facing(5, [4, 0, 0])},
    )
    run(mapping, tmp_path / "p.txt", query=query, method="poses", top_k=1)
    assert names_in(tmp_path / "p.txt") == [("p", "b"), ("q", "b")]


def test_images_without_poses_are_named(tmp_path: Path) -> None:
    poses = {"a": facing(0, [0, 0, 0]), "b": facing(0, [1, 0, 0])}
    mapping = write_dataset(tmp_path / "m", ["a", "b", "c", "d"], poses)
    rows = [[0, "cam", *numbers(poses["a"])], [1, "cam", *numbers(poses["b"])]]
    partial = "2, cam, , , , , 1, 2, 3"
    write_files(mapping, trajectories=f"{table(rows)}\n{partial}")
    report = run(mapping, tmp_path / "p.txt", method="poses")
    assert [failure.name for failure in report.failed] == ["c", "d"]
    assert "holds no whole pose of 'c'" in report.failed[0].reason
    assert names_in(tmp_path / "p.txt") == [("a", "b")]


def test_a_dataset_without_poses(mapping: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="trajectories.txt: found no pose"):
        run(mapping, tmp_path / "p.txt", method="poses")
    assert not (tmp_path / "p.txt").exists()


# covisibility


def write_map(root: Path, tracks: list[list[str]]) -> Path:
    """A kapture map of points that images see, each by a keypoint of its own."""
    names = sorted({name for track in tracks for name in track})
    write_dataset(root, names, {name: facing(0, [0, 0, 0]) for name in names})
    points = kapture.Points3d(np.random.default_rng(0).random((len(tracks), 6)))
    observations = kapture.Observations()
    for point, track in enumerate(tracks):
        for name in track:
            observations.add(point, "r2d2", name, point)
    (root / "reconstruction").mkdir()
    kcsv.points3d_to_file(str(root / "reconstruction/points3d.txt"), points)
    kcsv.observations_to_file(
        str(root / "reconstruction/observations.txt"), observations
    )
    return root


def test_images_that_see_points_in_common(mapping: Path, tmp_path: Path) -> None:
    a, b, c, d, e = sorted(NAMES)
    tracks = [[a, b], [a, b, c], [a, b, c], [c, d], ["not in mapping.jpg", a]]
    map_path = write_map(tmp_path / "map", tracks)
    report = run(mapping, tmp_path / "p.txt", method="covisibility", map_path=map_path)
    found = {pair.names: pair.score for pair in read_pairs(tmp_path / "p.txt")}
    assert found == {(a, b): 3, (a, c): 2, (b, c): 2, (c, d): 1}
    assert [failure.name for failure in report.failed] == [e]
    run(
        mapping,
        tmp_path / "best.txt",
        method="covisibility",
        map_path=map_path,
        min_score=2.0,
        top_k=1,
    )
    assert names_in(tmp_path / "best.txt") == [(a, b), (a, c)]


def test_covisibility_needs_a_map_of_these_images(
    mapping: Path, query: Path, tmp_path: Path
) -> None:
    output = tmp_path / "p.txt"
    with pytest.raises(ConfigError, match="found no --map"):
        run(mapping, output, method="covisibility")
    with pytest.raises(DatasetError, match="found neither a COLMAP model"):
        run(mapping, output, method="covisibility", map_path=tmp_path)
    other = write_map(tmp_path / "map", [["x.jpg", "y.jpg"]])
    with pytest.raises(DatasetError, match="found none of the 5 images"):
        run(mapping, output, method="covisibility", map_path=other)
    with pytest.raises(ConfigError, match="found --query"):
        run(mapping, output, method="covisibility", map_path=other, query=query)
    with pytest.raises(ConfigError, match="found --map, which only covisibility"):
        run(mapping, output, map_path=other)


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
    run(
        mapping,
        tmp_path / "p.txt",
        query=query,
        method="global",
        top_k=2,
        features=[apart],
    )
    found = read_pairs(tmp_path / "p.txt")
    assert [pair.names for pair in found] == [
        ("q/0.jpg", "Z.jpg"),
        ("q/0.jpg", "sub-é à.jpg"),
        ("q/1 2.jpg", "sub/é à.jpg"),
        ("q/1 2.jpg", "a b.jpg"),
    ]
    expected = np.cos(np.radians([2, 38, 8, 12]))
    np.testing.assert_allclose([pair.score for pair in found], expected, rtol=1e-5)


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


def test_no_image_with_itself_where_queries_are_mapping_images(
    mapping: Path, tmp_path: Path
) -> None:
    write_global_features(mapping, global_rows(dict(zip(NAMES, range(5)))))
    run(mapping, tmp_path / "p.txt", query=mapping, method="global", top_k=1)
    found = names_in(tmp_path / "p.txt")
    assert all(a != b for a, b in found)
    assert {name for pair in found for name in pair} == set(NAMES)


def test_least_score(mapping: Path, tmp_path: Path) -> None:
    write_global_features(mapping, global_rows(dict(zip(NAMES, [0, 20, 50, 90, 170]))))
    run(mapping, tmp_path / "p.txt", method="global", min_score=0.8)
    scores = [pair.score for pair in read_pairs(tmp_path / "p.txt")]
    assert len(scores) == 2 and min(scores) >= 0.8


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
    with pytest.raises(DatasetError, match="global_features types none"):
        run(mapping, output, method="global")
    rows = global_rows(dict(zip(NAMES, range(5))))
    write_global_features(mapping, rows)
    write_global_features(mapping, rows, name="netvlad")
    with pytest.raises(DatasetError, match="--global-features-type"):
        run(mapping, output, method="global")
    run(mapping, output, method="global", global_features_type="netvlad")
    report = json.loads((tmp_path / "p.report.json").read_text("utf-8"))
    assert report["global_features_type"] == "netvlad"


# local features

SCENES = {"s0": 0, "s1": 0, "s2": 0, "t0": 1, "t1": 1, "t2": 1}
"""Images of two scenes: three of each."""
WORDS = {"vlad_clusters": 4}


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


def gfeats(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".gfeat", ".safetensors")
    }


def test_images_of_one_scene_find_each_other(scenes: Path, tmp_path: Path) -> None:
    report = run(scenes, tmp_path / "p.txt", method="local", top_k=2, **WORDS)
    assert {frozenset(pair) for pair in names_in(tmp_path / "p.txt")} == {
        frozenset(pair)
        for scene in ("s", "t")
        for pair in itertools.combinations([f"{scene}{i}" for i in range(3)], 2)
    }
    assert report.details["images_described"] == 6


def test_queries_find_their_scene(scenes: Path, tmp_path: Path) -> None:
    query = write_dataset(tmp_path / "query", ["q t", "q s"])
    write_features(query, scene_features({"q t": 1, "q s": 0}))
    run(scenes, tmp_path / "p.txt", query=query, method="local", top_k=3, **WORDS)
    found = names_in(tmp_path / "p.txt")
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


def test_descriptors_are_shared_between_lists(scenes: Path, tmp_path: Path) -> None:
    shared = {"global_features_output": tmp_path / "g", "method": "local", **WORDS}
    run(scenes, tmp_path / "p.txt", **shared)
    before = gfeats(tmp_path / "g")
    query = write_dataset(tmp_path / "query", ["q"])
    write_features(query, scene_features({"q": 1}))
    report = run(scenes, tmp_path / "q.txt", query=query, **shared)
    assert report.details["images_described"] == 1
    assert report.details["images_described_before"] == 6
    assert before.items() < gfeats(tmp_path / "g").items()


def test_another_vocabulary_is_refused(scenes: Path, tmp_path: Path) -> None:
    shared = {"global_features_output": tmp_path / "g", "method": "local", **WORDS}
    run(scenes, tmp_path / "p.txt", **shared)
    before = gfeats(tmp_path / "g")
    with pytest.raises(OutputError, match="seed: 0, not 1"):
        run(scenes, tmp_path / "q.txt", seed=1, **shared)
    assert gfeats(tmp_path / "g") == before
    run(scenes, tmp_path / "q.txt", seed=1, options=RunOptions(force=True), **shared)
    assert gfeats(tmp_path / "g").keys() == before.keys()
    assert gfeats(tmp_path / "g") != before


def test_interrupted_and_run_again(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(scenes, tmp_path / "whole.txt", method="local", **WORDS)
    write = GlobalFeatureWriter.write

    def interrupted(writer: GlobalFeatureWriter, image: str, row: object) -> None:
        if image == "t0":
            raise KeyboardInterrupt
        write(writer, image, row)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(GlobalFeatureWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert not (tmp_path / "p.txt").exists()
    report = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert report.details["images_described_before"] == 3
    assert gfeats(tmp_path / "p_features") == gfeats(tmp_path / "whole_features")
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
    report = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert [failure.name for failure in report.failed] == ["t2"]
    write_features(scenes, scene_features(SCENES))
    again = run(scenes, tmp_path / "p.txt", method="local", **WORDS)
    assert again.failed == ()
    assert again.details["images_described"] == 1
    assert "t2" in {name for pair in names_in(tmp_path / "p.txt") for name in pair}


def test_fewer_images_than_clusters(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "p.txt", method="local", vlad_clusters=50, top_k=2)
    assert len(names_in(tmp_path / "p.txt")) == 6


def test_fewer_local_features_than_clusters(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--vlad-clusters 361: found 360 local feat"):
        run(scenes, tmp_path / "p.txt", method="local", vlad_clusters=361)
    assert not (tmp_path / "p.txt").exists()


def test_no_local_features(mapping: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="keypoints types none"):
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


def test_a_vocabulary_reads_as_it_was_written(tmp_path: Path) -> None:
    """In whatever order its arrays lie in memory."""
    whitening = Whitening(
        mean=unit_rows(1)[0], components=np.asfortranarray(unit_rows(3, seed=1))
    )
    written = Vocabulary(centres=unit_rows(4, seed=2)[:, ::2], whitening=whitening)
    retrieval.write_vocabulary(tmp_path / "v", written)
    found = retrieval.read_vocabulary(tmp_path / "v")
    np.testing.assert_array_equal(found.centres, written.centres)
    assert found.whitening is not None
    np.testing.assert_array_equal(found.whitening.mean, whitening.mean)
    np.testing.assert_array_equal(found.whitening.components, whitening.components)


# what is done with the list


def test_merging_keeps_the_first_of_a_pair(mapping: Path, tmp_path: Path) -> None:
    a, b, c, d, e = sorted(NAMES)
    one = [ImagePair(image1=b, image2=a, score=0.2), ImagePair(image1=a, image2=c)]
    two = [ImagePair(image1=a, image2=b, score=0.9), ImagePair(image1=d, image2=e)]
    write_pairs(tmp_path / "1.txt", one)
    write_pairs(tmp_path / "2.txt", two)
    merge = [tmp_path / "1.txt", tmp_path / "2.txt"]
    run(mapping, tmp_path / "p.txt", method="merge", merge=merge)
    assert read_pairs(tmp_path / "p.txt") == [one[1], one[0], two[1]]
    run(mapping, tmp_path / "e.txt", merge=merge)
    assert {pair.score for pair in read_pairs(tmp_path / "e.txt")} == {1}
    with pytest.raises(ConfigError, match="found no --merge"):
        run(mapping, tmp_path / "x.txt", method="merge")
    with pytest.raises(DatasetError, match="found no such file"):
        run(mapping, tmp_path / "x.txt", method="merge", merge=[tmp_path / "3.txt"])


def test_the_best_of_merged_lists(mapping: Path, tmp_path: Path) -> None:
    listed = [
        ImagePair(image1="q", image2=f"{i}", score=score)
        for i, score in enumerate([0.1, 0.9, 0.5])
    ]
    write_pairs(tmp_path / "1.txt", [*listed, ImagePair(image1="r", image2="0")])
    merge = [tmp_path / "1.txt"]
    run(mapping, tmp_path / "p.txt", method="merge", merge=merge, top_k=2)
    assert names_in(tmp_path / "p.txt") == [("q", "1"), ("q", "2"), ("r", "0")]


@pytest.mark.parametrize("parts", [1, 3, 10, 13])
def test_slices_are_the_whole_list(mapping: Path, tmp_path: Path, parts: int) -> None:
    run(mapping, tmp_path / "all.txt")
    found = []
    for part in range(1, parts + 1):
        run(mapping, tmp_path / f"{part}.txt", slice=f"{part}/{parts}")
        found.append(names_in(tmp_path / f"{part}.txt"))
    assert sum(found, []) == names_in(tmp_path / "all.txt")
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_second_run_finds_the_same_and_writes_nothing(
    mapping: Path, tmp_path: Path
) -> None:
    run(mapping, tmp_path / "p.txt")
    path = tmp_path / "p.txt"
    before = path.stat().st_mtime_ns, path.read_bytes()
    report = run(mapping, path)
    assert (report.done, report.skipped) == (0, 10)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_list_follows_its_inputs(mapping: Path, tmp_path: Path) -> None:
    run(mapping, tmp_path / "p.txt")
    write_dataset(mapping, [*NAMES, "new.jpg"])
    assert run(mapping, tmp_path / "p.txt").done == 15


def test_other_settings_are_refused_until_forced(mapping: Path, tmp_path: Path) -> None:
    run(mapping, tmp_path / "p.txt")
    before = (tmp_path / "p.txt").read_bytes()
    with pytest.raises(
        OutputError, match="method: exhaustive, not sequential; overlap"
    ):
        run(mapping, tmp_path / "p.txt", method="sequential", overlap=1)
    assert (tmp_path / "p.txt").read_bytes() == before
    force = RunOptions(force=True)
    run(mapping, tmp_path / "p.txt", method="sequential", overlap=1, options=force)
    assert len(names_in(tmp_path / "p.txt")) == 4


def test_a_list_of_the_users_own_is_not_replaced(mapping: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    run(mapping, path)
    path.write_text(path.read_text("utf-8") + "a, b, 1\n", "utf-8")
    with pytest.raises(OutputError, match="edited or made by other means"):
        run(mapping, path)
    assert ("a", "b") in names_in(path)
    (tmp_path / "p.report.json").unlink()
    with pytest.raises(OutputError, match="edited or made by other means"):
        run(mapping, path)


def test_an_empty_dataset(tmp_path: Path) -> None:
    mapping = write_dataset(tmp_path / "m", [])
    with pytest.raises(DatasetError, match="lists no image; nothing to pair"):
        run(mapping, tmp_path / "p.txt")
    with pytest.raises(DatasetError, match="nothing there"):
        run(tmp_path / "nowhere", tmp_path / "p.txt")


def test_names_with_commas_are_no_kapture(mapping: Path, tmp_path: Path) -> None:
    path = mapping / "sensors/records_camera.txt"
    path.write_text(path.read_text("utf-8") + "\n9, cam, a,b.jpg\n", "utf-8")
    with pytest.raises(DatasetError, match="commas: rename such images"):
        run(mapping, tmp_path / "p.txt")


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"method": "guess"}, "--method"),
        ({"top_k": -1}, "--top-k"),
        ({"overlap": 0}, "--overlap"),
        ({"max_distance": 0.0}, "--max-distance"),
        ({"max_angle": 181.0}, "--max-angle"),
        ({"vlad_clusters": 0}, "--vlad-clusters"),
        ({"vlad_dim": -1}, "--vlad-dim"),
        ({"seed": -1}, "--seed"),
        ({"slice": "0/3"}, "--slice"),
        ({"slice": "4/3"}, "--slice"),
        ({"slice": "half"}, "--slice"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        PairsConfig(**settings)  # type: ignore[arg-type]


# the real data

GALLERY = Path("data/virtual_gallery")


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
