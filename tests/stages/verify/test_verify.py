"""Verification: what holds out, resuming, and what stands in its way."""

from __future__ import annotations

import dataclasses
import itertools
import json
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
    R2D2KaptureError,
    ReconstructionError,
)
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.stages.verify import stage as verify
from tests.scenes.colmap import known_pose_model
from tests.scenes.colmap import verify as colmap_verify
from tests.scenes.world import (
    Scene,
    pair_matches,
    write_array,
    write_from_colmap,
    write_matches,
)
from tests.stages.verify_runs import (
    TYPE,
    folder,
    inliers_of,
    outputs,
    plain_database,
    run,
    write_list,
)


def keypoint_file(mapping: Path, name: str) -> Path:
    return mapping / "reconstruction" / "keypoints" / TYPE / f"{name}.kpt"


def test_wrong_matches_go_and_the_database_has_everything(
    mapping: Path, scene: Scene, tmp_path: Path
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


def test_the_same_as_colmaps_own_verification(
    mapping: Path, tmp_path: Path, scene: Scene
) -> None:
    run(mapping)
    path = plain_database(tmp_path / "colmap.db", scene)
    colmap_verify(path)
    expected = inliers_of(path)
    assert len(expected) == 15
    assert inliers_of(tmp_path / "map.db") == expected


def test_known_poses_as_in_colmap(mapping: Path, tmp_path: Path, scene: Scene) -> None:
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
    tmp_path: Path, scene: Scene
) -> None:
    exact = Scene(times=2)
    root = exact.write_kapture(tmp_path / "mapping")
    name = "seq é/walker/0 b.jpg"
    moved = exact.keypoints(name)
    moved[:, 1] += 3  # the walker moves along x, lines lie along it
    write_array(keypoint_file(root, name), moved)
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


def test_the_origin_of_cameras_may_be_told(mapping: Path, tmp_path: Path) -> None:
    report = run(mapping, VerifyConfig(camera_origin="corner"))
    assert report.details["camera_origin"] == "corner"
    with closing(pycolmap.Database.open(str(tmp_path / "map.db"))) as database:
        assert {c.principal_point_x for c in database.read_all_cameras()} == {319.5}


def test_keypoints_of_colmap_stay_with_their_cameras(
    mapping: Path, tmp_path: Path, scene: Scene
) -> None:
    inliers = run(mapping).details["inliers"]
    write_from_colmap(mapping, Scene(times=2, noise=0.5, wrong=4))
    (tmp_path / "map.db").unlink()
    report = run(mapping, output=tmp_path / "of colmap")
    assert report.details["camera_origin"] == "corner"
    assert report.details["keypoint_origin"] == "corner"
    assert report.details["inliers"] == inliers
    (warning,) = report.warnings
    assert "'r2d2' do not state" in warning and "--keypoint-origin center" in warning
    name = scene.names[0]
    with closing(pycolmap.Database.open(str(tmp_path / "map.db"))) as database:
        assert {c.principal_point_x for c in database.read_all_cameras()} == {320}
        image = database.read_image_with_name(name)
        stored = database.read_keypoints(image.image_id)
    np.testing.assert_array_equal(stored, scene.keypoints(name)[:, :2] + 0.5)
    given = run(
        mapping,
        VerifyConfig(keypoint_origin="corner"),
        output=tmp_path / "given",
        database=tmp_path / "given.db",
    )
    assert given.warnings == ()


def test_matches_of_which_none_is_there_make_no_database(
    mapping: Path, tmp_path: Path, scene: Scene
) -> None:
    for path in (mapping / "reconstruction" / "matches").rglob("*.matches"):
        path.unlink()
    listed = write_list(tmp_path / "pairs.txt", [(scene.names[0], scene.names[1])])
    with pytest.raises(FeatureFormatError, match="1 pairs have no matches"):
        run(mapping, pairs=listed)
    assert not (tmp_path / "map.db").exists()


@pytest.mark.parametrize("geometry", ["estimate", "known_poses"])
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, scene: Scene, geometry: Any
) -> None:
    written = []
    for workers in (1, 4):
        mapping = scene.write_kapture(tmp_path / str(workers) / "mapping")
        options = RunOptions(workers=workers, progress=False)
        run(mapping, VerifyConfig(geometry=geometry), options=options)
        written.append(outputs(mapping))
    assert len(written[0]) == 15 + 3
    assert written[0] == written[1]


def test_verified_matches_are_those_of_the_database(
    mapping: Path, tmp_path: Path, scene: Scene
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


def test_pairs_without_enough_matches_are_results(mapping: Path, scene: Scene) -> None:
    first, second, third = sorted(scene.names)[:3]
    write_matches(mapping, (first, second), pair_matches([]))
    write_matches(mapping, (first, third), pair_matches([[1, 2], [3, 4]]))
    report = run(mapping)
    assert report.failed == ()
    assert report.details["verified_pairs"] == 13
    verified = open_matches([mapping.parent / "verified"], TYPE)
    assert [len(verified.read(first, n) or []) for n in (second, third)] == [0, 0]
    assert run(mapping).skipped == 15
    for pair in itertools.combinations(sorted(scene.names), 2):
        write_matches(mapping, pair, pair_matches([]))
    for _ in range(2):
        (warning,) = run(mapping).warnings
        assert warning.startswith("none of 15 pairs is verified")


def test_image_with_no_keypoints_is_no_failure(mapping: Path, scene: Scene) -> None:
    empty = sorted(scene.names)[0]
    keypoint_file(mapping, empty).write_bytes(b"")
    for other in sorted(scene.names)[1:]:
        write_matches(mapping, (empty, other), pair_matches([]))
    report = run(mapping)
    assert report.failed == ()
    assert report.details["verified_pairs"] == 10


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda rows: rows * 2, "outside of its 640 x 480 pixels"),
        (lambda rows: None, "found no keypoints"),
        (lambda rows: rows.view(np.uint8).ravel()[:-3], "expected rows of 3"),
        (lambda rows: np.full_like(rows, np.nan), "NaN"),
    ],
)
def test_image_with_unusable_keypoints_is_reported_and_the_others_continue(
    mapping: Path, scene: Scene, damage: Callable[[Any], Any], words: str
) -> None:
    name = min(scene.names)
    path = keypoint_file(mapping, name)
    damaged = damage(np.fromfile(path, np.float32).reshape(120, 3))
    path.unlink()
    if damaged is not None:
        write_array(path, damaged)
    report = run(mapping)
    (failure,) = report.failed
    assert failure.name == name
    assert words in failure.reason
    assert report.done == 10
    with pytest.raises(FeatureFormatError, match=words):
        run(mapping, options=RunOptions(strict=True, progress=False))


def test_pairs_without_matches_are_one_failure(mapping: Path, scene: Scene) -> None:
    names = sorted(scene.names)
    for name in names[2:4]:
        matches = mapping / "reconstruction" / "matches" / TYPE
        (matches / f"{names[0]}.overlapping" / f"{name}.matches").unlink()
    listed = mapping.parent / "pairs.txt"
    write_list(listed, [(names[0], name) for name in names[1:5]])
    report = run(mapping, pairs=listed)
    (failure,) = report.failed
    assert "2 pairs" in failure.reason and names[2] in failure.reason
    assert "kapture_r2d2_match" in failure.reason
    assert report.done == 2
    with pytest.raises(FeatureFormatError, match="2 pairs"):
        run(mapping, pairs=listed, options=RunOptions(strict=True, progress=False))


def test_matches_beyond_the_keypoints_are_reported(mapping: Path, scene: Scene) -> None:
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


def test_pairs_that_cannot_be_verified_are_refused(
    mapping: Path, scene: Scene, tmp_path: Path
) -> None:
    listed = mapping.parent / "pairs.txt"
    write_list(listed, [(scene.names[0], "stranger é.jpg")])
    with pytest.raises(DatasetError, match="stranger é.jpg") as caught:
        run(mapping, pairs=listed)
    assert str(listed) in str(caught.value)
    write_list(listed, [])
    with pytest.raises(DatasetError, match="no pair"):
        run(mapping, pairs=listed)


def test_matches_of_other_images_are_left_out(mapping: Path, scene: Scene) -> None:
    write_matches(mapping, ("query.jpg", scene.names[0]), pair_matches([[0, 0]]))
    assert run(mapping).details["pairs"] == 15


def test_features_of_two_types_must_be_distinguished(
    mapping: Path, scene: Scene
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


def test_report_is_kept_next_to_the_matches_and_the_dataset_not_touched(
    mapping: Path,
) -> None:
    def state() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in mapping.rglob("*")}

    before = state()
    report = run(mapping)
    saved = json.loads((folder(mapping) / verify.REPORT_NAME).read_text("utf-8"))
    assert saved == json.loads(json.dumps(report.to_json()))
    run(mapping)
    again = json.loads((folder(mapping) / verify.REPORT_NAME).read_text("utf-8"))
    assert again["done"] == 15
    assert state() == before
