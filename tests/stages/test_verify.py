"""Verification: what holds out, resuming, and what stands in its way."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    FeatureFormatError,
    OutputError,
    R2D2KaptureError,
    ReconstructionError,
)
from r2d2_kapture.io.colmap_check import check_database
from r2d2_kapture.io.match_store import open_matches
from r2d2_kapture.io.pairs import ImagePair, write_pairs
from r2d2_kapture.stages import verify, verify_pairs
from r2d2_kapture.types import PairMatches, Report
from tests.colmap_scene import (
    Scene,
    known_pose_model,
    pair_matches,
)
from tests.colmap_scene import verify as colmap_verify
from tests.colmap_scene import write_matches, write_rows

CHECKOUT = Path(__file__).resolve().parents[2]
TYPE = "r2d2"


class NoisyScene(Scene):
    """The scene with half a pixel of noise, and every fourth match wrong."""

    def keypoints(self, name: str) -> Any:
        rng = np.random.default_rng(sorted(self.names).index(name))
        keypoints = super().keypoints(name)
        keypoints[:, :2] += rng.normal(0, 0.5, (len(keypoints), 2))
        return keypoints.astype(np.float32)

    def matches(self, first: str, second: str) -> PairMatches:
        indices = super().matches(first, second).indices
        indices[::4, 1] = np.roll(indices[::4, 1], 1)
        scores = 1 - 0.001 * np.arange(len(indices), dtype=np.float32)
        return PairMatches(indices=indices, scores=scores.astype(np.float32))


@pytest.fixture(scope="module")
def scene() -> NoisyScene:
    return NoisyScene(times=2)


@pytest.fixture
def mapping(tmp_path: Path, scene: NoisyScene) -> Path:
    return scene.write_kapture(tmp_path / "mapping")


def run(mapping: Path, config: VerifyConfig = VerifyConfig(), **changes: Any) -> Report:
    out = mapping.parent
    settings: dict[str, Any] = {
        "features": [mapping],
        "matches": [mapping],
        "pairs": None,
        "database": out / "map.db",
        "output": out / "verified",
        "options": RunOptions(progress=False),
    }
    return verify.run(config, mapping=mapping, **(settings | changes))


def folder(mapping: Path) -> Path:
    return mapping.parent / "verified" / "reconstruction" / "matches" / TYPE


def outputs(mapping: Path) -> dict[str, bytes]:
    """All that a run writes but for its report, which holds the time."""
    paths = [*folder(mapping).rglob("*"), mapping.parent / "map.db"]
    return {
        str(path.relative_to(mapping.parent)): path.read_bytes()
        for path in paths
        if path.is_file() and path.name not in (verify.REPORT_NAME, ".lock")
    }


def inliers_of(database: Path) -> dict[tuple[int, int], list[list[int]]]:
    with closing(pycolmap.Database.open(str(database))) as opened:
        pair_ids, geometries = opened.read_two_view_geometries()
    return {
        pycolmap.pair_id_to_image_pair(pair_id): geometry.inlier_matches.tolist()
        for pair_id, geometry in zip(pair_ids, geometries)
        if len(geometry.inlier_matches)
    }


def write_list(path: Path, pairs: list[tuple[str, str]]) -> Path:
    write_pairs(path, [ImagePair(image1=a, image2=b) for a, b in pairs])
    return path


def plain_database(path: Path, scene: Scene) -> Path:
    scene.write(path)
    return path


def test_wrong_matches_go_and_right_ones_keep_their_scores(
    mapping: Path, scene: NoisyScene
) -> None:
    report = run(mapping)
    assert report.details["pairs"] == report.details["verified_pairs"] == 15
    assert (report.done, report.skipped, report.failed) == (15, 0, ())
    assert report.details["matches"] == 15 * 120
    verified = open_matches([mapping.parent / "verified"], TYPE)
    assert len(verified.pairs) == 15
    right = wrong = 0
    for pair in verified.pairs:
        raw, kept = scene.matches(*pair), verified.read(*pair)
        assert kept is not None
        rows = kept.indices[:, 0]  # the raw matches are in this order
        np.testing.assert_array_equal(kept.indices, raw.indices[rows])
        np.testing.assert_array_equal(kept.scores, raw.scores[rows])
        agree = kept.indices[:, 0] == kept.indices[:, 1]
        right, wrong = right + int(agree.sum()), wrong + int((~agree).sum())
    assert report.details["inliers"] == right + wrong
    assert right > 0.99 * 15 * 90
    assert wrong < 0.1 * 15 * 30


def test_the_same_as_colmaps_own_verification(
    mapping: Path, tmp_path: Path, scene: NoisyScene
) -> None:
    run(mapping)
    path = plain_database(tmp_path / "colmap.db", scene)
    colmap_verify(path)
    expected = inliers_of(path)
    assert len(expected) == 15
    assert inliers_of(tmp_path / "map.db") == expected


def test_known_poses_as_in_colmap(
    mapping: Path, tmp_path: Path, scene: NoisyScene
) -> None:
    run(mapping, VerifyConfig(geometry="known_poses", max_error=2))
    path = plain_database(tmp_path / "colmap.db", scene)
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = 2
    pycolmap.guided_geometric_verification(
        known_pose_model(path, scene.poses.__getitem__),
        str(path),
        two_view_geometry_options=options,
        num_threads=1,
    )
    expected = inliers_of(path)
    assert sum(map(len, expected.values())) > 15 * 80
    assert inliers_of(tmp_path / "map.db") == expected


def test_known_poses_measure_pixels_to_the_epipolar_line(
    tmp_path: Path, scene: NoisyScene
) -> None:
    exact = Scene(times=2)
    root = exact.write_kapture(tmp_path / "mapping")
    name = "seq é/walker/0 b.jpg"
    moved = exact.keypoints(name)
    moved[:, 1] += 3  # the walker moves along x, lines lie along it
    file = root / "reconstruction" / "keypoints" / TYPE / f"{name}.kpt"
    write_rows(file, moved)
    pairs = write_list(tmp_path / "pairs.txt", [(name, "seq é/walker/1 b.jpg")])
    kept = {}
    for max_error in (2.0, 6.0):
        report = run(
            root,
            VerifyConfig(geometry="known_poses", max_error=max_error),
            pairs=pairs,
            output=tmp_path / f"{max_error}",
            database=tmp_path / f"{max_error}.db",
        )
        kept[max_error] = report.details["inliers"]
    assert kept == {2.0: 0, 6.0: 120}


def test_database_has_everything_and_counts_pixels_from_the_corner(
    mapping: Path, tmp_path: Path, scene: NoisyScene
) -> None:
    report = run(mapping)
    check_database(tmp_path / "map.db")
    assert report.details["camera_origin"] == "center"
    with closing(pycolmap.Database.open(str(tmp_path / "map.db"))) as database:
        assert database.num_images() == 6
        assert (database.num_rigs(), database.num_frames()) == (2, 4)
        assert database.num_matches() == 15 * 120
        assert {c.principal_point_x for c in database.read_all_cameras()} == {320}
        name = scene.names[0]
        image = database.read_image_with_name(name)
        np.testing.assert_allclose(
            database.read_keypoints(image.image_id),
            scene.keypoints(name)[:, :2] + 0.5,
            atol=1e-4,
        )


def test_the_origin_of_cameras_may_be_told(mapping: Path, tmp_path: Path) -> None:
    report = run(mapping, VerifyConfig(camera_origin="corner"))
    assert report.details["camera_origin"] == "corner"
    with closing(pycolmap.Database.open(str(tmp_path / "map.db"))) as database:
        assert {c.principal_point_x for c in database.read_all_cameras()} == {319.5}


@pytest.mark.parametrize("geometry", ["estimate", "known_poses"])
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, scene: NoisyScene, geometry: Any
) -> None:
    written = []
    for workers in (1, 4):
        mapping = scene.write_kapture(tmp_path / str(workers) / "mapping")
        options = RunOptions(workers=workers, progress=False)
        run(mapping, VerifyConfig(geometry=geometry), options=options)
        written.append(outputs(mapping))
    assert len(written[0]) == 15 + 3
    assert written[0] == written[1]


def test_second_run_finds_everything_done(mapping: Path) -> None:
    first = run(mapping)
    before = {path: path.stat().st_mtime_ns for path in folder(mapping).rglob("*")}
    database = (mapping.parent / "map.db").stat()
    report = run(mapping)
    assert (report.done, report.skipped) == (0, 15)
    assert report.details == first.details
    for path, time in before.items():
        assert path.name in (".lock", "manifest.json") or (
            path.is_dir() or path.stat().st_mtime_ns == time
        )
    assert (mapping.parent / "map.db").stat().st_ino == database.st_ino


def test_opening_the_database_with_colmap_does_not_count_as_a_change(
    mapping: Path,
) -> None:
    run(mapping)
    pycolmap.Database.open(str(mapping.parent / "map.db")).close()
    assert run(mapping).skipped == 15


KILLED = """
import os, signal, sys
from pathlib import Path
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.stages import verify, verify_pairs

root, place = Path(sys.argv[1]), sys.argv[2]
count = 0
def die(*arguments, **settings):
    global count
    count += 1
    if count == 8 or place == "database":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **settings)

module, name = {
    "pairs": (verify_pairs, "verify_matches"), "database": (verify, "write_database")
}[place]
real = getattr(module, name)
setattr(module, name, die)
verify.run(
    VerifyConfig(), mapping=root, features=[root], matches=[root], pairs=None,
    database=root.parent / "map.db", output=root.parent / "verified",
    options=RunOptions(workers=2, progress=False),
)
"""


@pytest.mark.parametrize("place, kept", [("pairs", 4), ("database", 15)])
def test_killed_run_is_resumed_to_the_same_end(
    tmp_path: Path, scene: NoisyScene, place: str, kept: int
) -> None:
    unbroken = scene.write_kapture(tmp_path / "unbroken" / "mapping")
    run(unbroken)
    mapping = scene.write_kapture(tmp_path / "killed" / "mapping")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(mapping), place], cwd=CHECKOUT
    )
    assert done.returncode == -signal.SIGKILL
    assert not (mapping.parent / "map.db").exists()
    report = run(mapping)
    assert report.skipped >= kept
    assert report.done + report.skipped == 15
    assert outputs(mapping) == outputs(unbroken)


def test_interrupted_run_is_resumed_to_the_same_end(
    tmp_path: Path, scene: NoisyScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = scene.write_kapture(tmp_path / "unbroken" / "mapping")
    run(unbroken)
    mapping = scene.write_kapture(tmp_path / "broken" / "mapping")
    real, calls = verify_pairs.verify_matches, itertools.count()

    def interrupted(*arguments: Any) -> pycolmap.TwoViewGeometry:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(verify_pairs, "verify_matches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(mapping)
    assert not (mapping.parent / "map.db").exists()
    assert run(mapping).skipped >= 6
    assert outputs(mapping) == outputs(unbroken)


def test_lost_and_broken_results_are_made_again(mapping: Path) -> None:
    run(mapping)
    before = outputs(mapping)
    lost, short, odd = sorted(folder(mapping).rglob("*.matches"))[:3]
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-24])
    odd.write_bytes(odd.read_bytes()[:-5])
    assert run(mapping).done == 3
    assert outputs(mapping) == before


def test_changed_keypoints_are_verified_again(mapping: Path, scene: NoisyScene) -> None:
    run(mapping)
    name = scene.names[0]
    file = mapping / "reconstruction" / "keypoints" / TYPE / f"{name}.kpt"
    write_rows(file, Scene(times=2).keypoints(name))
    report = run(mapping)
    assert (report.done, report.skipped) == (5, 10)
    with closing(pycolmap.Database.open(str(mapping.parent / "map.db"))) as database:
        stored = database.read_keypoints(database.read_image_with_name(name).image_id)
    np.testing.assert_allclose(
        stored, Scene(times=2).keypoints(name)[:, :2] + 0.5, atol=1e-4
    )


def test_more_pairs_extend_what_is_there(mapping: Path, scene: NoisyScene) -> None:
    pairs = list(itertools.combinations(sorted(scene.names), 2))
    listed = write_list(mapping.parent / "pairs.txt", pairs[:10])
    assert run(mapping, pairs=listed).done == 10
    write_list(listed, [(b, a) for a, b in pairs[:12]])
    report = run(mapping, pairs=listed)
    assert (report.done, report.skipped) == (2, 10)
    assert len(inliers_of(mapping.parent / "map.db")) == 12


def test_verified_matches_are_those_of_the_database(
    mapping: Path, tmp_path: Path, scene: NoisyScene
) -> None:
    pairs = list(itertools.combinations(sorted(scene.names), 2))
    few = write_list(tmp_path / "few.txt", pairs[3:7])
    run(mapping, pairs=few, output=tmp_path / "alone", database=tmp_path / "alone.db")
    run(mapping)
    report = run(mapping, pairs=few)
    assert (report.done, report.skipped) == (0, 4)
    assert open_matches([tmp_path / "verified"], TYPE).pairs == pairs[3:7]
    assert (tmp_path / "map.db").read_bytes() == (tmp_path / "alone.db").read_bytes()
    report = run(mapping)
    assert (report.done, report.skipped) == (11, 4)
    assert open_matches([tmp_path / "verified"], TYPE).pairs == pairs
    assert len(inliers_of(tmp_path / "map.db")) == 15


def test_other_settings_are_refused_and_named(mapping: Path) -> None:
    run(mapping)
    before = outputs(mapping)
    with pytest.raises(OutputError, match="max_error: 4.0, not 2.0") as caught:
        run(mapping, VerifyConfig(max_error=2.0))
    assert "--force" in str(caught.value)
    assert outputs(mapping) == before
    options = RunOptions(force=True, progress=False)
    assert run(mapping, VerifyConfig(max_error=2.0), options=options).done == 15
    assert outputs(mapping) != before
    assert run(mapping, VerifyConfig(max_error=2.0)).skipped == 15


def test_database_of_others_is_kept_unless_forced(
    mapping: Path, tmp_path: Path
) -> None:
    path = tmp_path / "map.db"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="did not write"):
        run(mapping)
    assert path.read_bytes() == b"precious"
    run(mapping, options=RunOptions(force=True, progress=False))
    check_database(path)


def test_database_that_was_changed_is_kept_unless_forced(
    mapping: Path, tmp_path: Path
) -> None:
    run(mapping)
    with closing(pycolmap.Database.open(str(tmp_path / "map.db"))) as database:
        database.delete_matches(1, 2)
    with pytest.raises(OutputError, match="changed since"):
        run(mapping)


@pytest.mark.parametrize("ours", [True, False])
def test_database_that_is_being_written_is_never_replaced(
    mapping: Path, tmp_path: Path, scene: NoisyScene, ours: bool
) -> None:
    path = tmp_path / "map.db"
    listed = write_list(tmp_path / "pairs.txt", [tuple(sorted(scene.names)[:2])])
    if ours:
        run(mapping, pairs=listed)
    else:
        plain_database(path, scene)
    before = path.read_bytes()
    options = RunOptions(force=not ours, progress=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatasetError, match="another process is using"):
            run(mapping, options=options)
        assert path.read_bytes() == before
        if ours:
            assert run(mapping, pairs=listed).details["pairs"] == 1  # nothing to write
        other.execute("ROLLBACK")
    assert run(mapping, options=options).details["pairs"] == 15
    assert path.read_bytes() != before


def test_two_runs_into_one_folder_are_kept_apart(
    mapping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> None:
        run(mapping)

    monkeypatch.setattr(verify_pairs, "verify_matches", meanwhile)
    with pytest.raises(OutputError, match="another run"):
        run(mapping)


def test_pairs_without_enough_matches_are_results(
    mapping: Path, scene: NoisyScene
) -> None:
    first, second, third = sorted(scene.names)[:3]
    write_matches(mapping, (first, second), pair_matches([]))
    write_matches(mapping, (first, third), pair_matches([[1, 2], [3, 4]]))
    report = run(mapping)
    assert report.failed == ()
    assert report.details["verified_pairs"] == 13
    verified = open_matches([mapping.parent / "verified"], TYPE)
    assert [len(verified.read(first, n) or []) for n in (second, third)] == [0, 0]
    assert run(mapping).skipped == 15


def test_image_with_no_keypoints_is_no_failure(
    mapping: Path, scene: NoisyScene
) -> None:
    empty = sorted(scene.names)[0]
    file = mapping / "reconstruction" / "keypoints" / TYPE / f"{empty}.kpt"
    file.write_bytes(b"")
    for other in sorted(scene.names)[1:]:
        write_matches(mapping, (empty, other), pair_matches([]))
    report = run(mapping)
    assert report.failed == ()
    assert report.details["verified_pairs"] == 10


Breaking = Callable[[Path, list[str]], object]


def remove_keypoints(root: Path, names: list[str]) -> None:
    (root / "reconstruction" / "keypoints" / TYPE / f"{names[0]}.kpt").unlink()


def truncate_keypoints(root: Path, names: list[str]) -> None:
    path = root / "reconstruction" / "keypoints" / TYPE / f"{names[0]}.kpt"
    path.write_bytes(path.read_bytes()[:-3])


def spoil_keypoints(root: Path, names: list[str]) -> None:
    path = root / "reconstruction" / "keypoints" / TYPE / f"{names[0]}.kpt"
    write_rows(path, np.full((120, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    "damage, words",
    [
        (remove_keypoints, "found no keypoints"),
        (truncate_keypoints, "expected rows of 3"),
        (spoil_keypoints, "NaN"),
    ],
)
def test_image_with_unusable_keypoints_is_reported_and_the_others_go_on(
    mapping: Path, scene: NoisyScene, damage: Breaking, words: str
) -> None:
    names = sorted(scene.names)
    damage(mapping, names)
    report = run(mapping)
    (failure,) = report.failed
    assert failure.name == names[0]
    assert words in failure.reason
    assert report.done == 10
    with pytest.raises(FeatureFormatError, match=words):
        run(mapping, options=RunOptions(strict=True, progress=False))


def test_pairs_without_matches_are_one_failure(
    mapping: Path, scene: NoisyScene
) -> None:
    names = sorted(scene.names)
    for name in names[2:4]:
        (
            mapping
            / "reconstruction"
            / "matches"
            / TYPE
            / f"{names[0]}.overlapping"
            / f"{name}.matches"
        ).unlink()
    listed = mapping.parent / "pairs.txt"
    write_list(listed, [(names[0], name) for name in names[1:5]])
    report = run(mapping, pairs=listed)
    (failure,) = report.failed
    assert "2 pairs" in failure.reason and names[2] in failure.reason
    assert "kapture_r2d2_match" in failure.reason
    assert report.done == 2
    with pytest.raises(FeatureFormatError, match="2 pairs"):
        run(mapping, pairs=listed, options=RunOptions(strict=True, progress=False))


def test_matches_beyond_the_keypoints_are_reported(
    mapping: Path, scene: NoisyScene
) -> None:
    first, second = sorted(scene.names)[:2]
    write_matches(mapping, (first, second), pair_matches([[0, 0], [5, 120]]))
    report = run(mapping)
    (failure,) = report.failed
    assert first in failure.name and second in failure.name
    assert "120" in failure.reason
    assert report.done == 14
    assert (1, 2) not in inliers_of(mapping.parent / "map.db")


def test_output_where_the_matches_are_is_refused(mapping: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in mapping.rglob("*")}
    for force in (False, True):
        with pytest.raises(ConfigError, match="matches to verify"):
            options = RunOptions(force=force, progress=False)
            run(mapping, output=mapping, options=options)
    assert {path: path.stat().st_mtime_ns for path in mapping.rglob("*")} == before


def test_pair_of_an_unknown_image_is_refused(mapping: Path, scene: NoisyScene) -> None:
    listed = mapping.parent / "pairs.txt"
    write_list(listed, [(scene.names[0], "stranger é.jpg")])
    with pytest.raises(DatasetError, match="stranger é.jpg") as caught:
        run(mapping, pairs=listed)
    assert str(listed) in str(caught.value)


def test_matches_of_other_images_are_left_out(mapping: Path, scene: NoisyScene) -> None:
    write_matches(mapping, ("query.jpg", scene.names[0]), pair_matches([[0, 0]]))
    assert run(mapping).details["pairs"] == 15


def test_no_pairs_at_all(mapping: Path, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "pairs.txt", [])
    with pytest.raises(DatasetError, match="no pair"):
        run(mapping, pairs=listed)


def test_features_of_two_types_must_be_told_apart(
    mapping: Path, scene: NoisyScene
) -> None:
    scene.write_kapture(mapping, "other")
    with pytest.raises(DatasetError, match="--keypoints-type"):
        run(mapping)
    assert run(mapping, keypoints_type="other").done == 15


def test_missing_inputs(mapping: Path, tmp_path: Path) -> None:
    cases: list[dict[str, Any]] = [
        {"mapping": tmp_path / "absent"},
        {"features": [tmp_path / "absent"]},
        {"matches": [tmp_path]},
        {"pairs": tmp_path / "absent.txt"},
    ]
    for changes in cases:
        root = changes.pop("mapping", mapping)
        with pytest.raises(R2D2KaptureError) as caught:
            run(root, **changes)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "map.db").exists()


def test_known_poses_need_every_pose(tmp_path: Path) -> None:
    scene = Scene(times=2)
    del scene.dataset.trajectories[1]["walker"]
    mapping = scene.write_kapture(tmp_path / "mapping")
    with pytest.raises(ReconstructionError, match="1 images have no pose") as caught:
        run(mapping, VerifyConfig(geometry="known_poses"))
    assert "seq é/walker/1 b.jpg" in str(caught.value)
    assert run(mapping).done == 15


@pytest.mark.parametrize(
    "changes",
    [{"max_error": 0.0}, {"min_inliers": 0}, {"seed": -1}, {"geometry": "guess"}],
)
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        dataclasses.replace(VerifyConfig(), **changes)


def test_report_is_kept_beside_the_matches(mapping: Path) -> None:
    report = run(mapping)
    saved = json.loads((folder(mapping) / verify.REPORT_NAME).read_text("utf-8"))
    assert saved == json.loads(json.dumps(report.to_json()))
    run(mapping)
    again = json.loads((folder(mapping) / verify.REPORT_NAME).read_text("utf-8"))
    assert again["done"] == 15


def test_dataset_is_not_touched(mapping: Path) -> None:
    def state() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in mapping.rglob("*")}

    before = state()
    run(mapping)
    assert state() == before
    assert os.access(mapping, os.R_OK)
