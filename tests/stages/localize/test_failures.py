"""Localization of what is broken, missing or contradictory: each says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    OutputError,
    ReconstructionError,
)
from r2d2_kapture.stages.localize import stage as localize
from tests.scenes.localization import QUIET, LocalizationScene, position_error
from tests.scenes.world import CENTER_PP, FOCAL, write_array
from tests.stages.localize.test_localize import poses_of, reasons, record

SINGLE = LocalizeConfig(rigs="off")


def break_no_pairs(scene: LocalizationScene, name: str) -> None:
    others = [query for query in scene.queries if query != name]
    scene.write_pairs([(query, image) for query in others for image in scene.mapped])


def break_pairs_outside_the_map(scene: LocalizationScene, name: str) -> None:
    others = [query for query in scene.queries if query != name]
    pairs = [(query, image) for query in others for image in scene.mapped]
    scene.write_pairs([*pairs, (name, "other map/a.jpg"), (name, "b.jpg")])


def break_feature_file(scene: LocalizationScene, name: str) -> None:
    scene.keypoint_file(name).unlink()


def break_matches(scene: LocalizationScene, name: str) -> None:
    for image in scene.mapped:
        scene.replace_matches(name, image, np.zeros((0, 2)))


def break_match_file(scene: LocalizationScene, name: str) -> None:
    scene.match_file(name, scene.mapped[0]).write_bytes(b"odd")


def break_keypoints(scene: LocalizationScene, name: str) -> None:
    scene.keypoint_file(name).write_bytes(b"")
    break_matches(scene, name)


def break_size(scene: LocalizationScene, name: str) -> None:
    path = scene.keypoint_file(name)
    write_array(path, np.fromfile(path, np.float32) * 2)


def break_matching(scene: LocalizationScene, name: str) -> None:
    for image in scene.mapped:
        scene.match_file(name, image).unlink()


def break_indices(*row: int) -> Callable[[LocalizationScene, str], None]:
    return lambda scene, name: scene.replace_matches(
        name, scene.mapped[0], np.array([row])
    )


def break_truth(scene: LocalizationScene, name: str) -> None:
    break_matches(scene, name)
    image = scene.mapped[0]
    rows = scene.rng.permutation(scene.rows[image])
    scene.replace_matches(name, image, np.column_stack([scene.rows[name], rows]))


def test_a_broken_image_of_a_rig_fails_alone(exact: LocalizationScene) -> None:
    left, right, walker = exact.queries
    break_feature_file(exact, left)
    report = exact.run()
    assert report.done == 2
    assert list(reasons(report)) == [left]
    assert "found no keypoints of type 'r2d2'" in reasons(report)[left]
    assert sorted(poses_of(exact)) == [right, walker]
    assert position_error(poses_of(exact)[right], exact.truth(right)) < 1e-4
    # not settled before the other is whole
    assert list(reasons(exact.run())) == [left]
    exact.write_features(0.0)
    assert exact.run().failed == ()
    assert sorted(poses_of(exact)) == exact.queries


def test_images_of_a_rig_that_are_all_broken_each_say_why(
    exact: LocalizationScene,
) -> None:
    left, right, _ = exact.queries
    break_feature_file(exact, left)
    break_match_file(exact, right)
    told = reasons(exact.run())
    assert list(told) == [left, right]
    assert "found no keypoints" in told[left]
    assert "expected rows of 3 float64" in told[right]


def test_a_focal_length_that_no_camera_has_is_reported(
    exact: LocalizationScene,
) -> None:
    name = exact.queries[2]
    keypoints = np.fromfile(exact.keypoint_file(name), np.float32).reshape(-1, 3)
    keypoints[:, :2] = (keypoints[:, :2] - CENTER_PP) / 20 + CENTER_PP
    keypoints.tofile(exact.keypoint_file(name))
    report = exact.run(LocalizeConfig(rigs="off", focal_length="estimate"))
    assert list(reasons(report)) == [name]
    told = reasons(report)[name]
    focal = float(told.partition("focal length of ")[2].partition(" px")[0])
    assert focal == pytest.approx(FOCAL / 20, rel=0.01)
    assert "640 x 480 px" in told and "sensors.txt" in told
    assert "inliers" not in told


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_no_pairs, "no pairs; pair it with map images"),
        (break_pairs_outside_the_map, "none of the 2 images it is paired with"),
        (break_keypoints, "no keypoints"),
        (break_size, "outside of its 640 x 480 pixels"),
        (break_feature_file, "found no keypoints of type 'r2d2'"),
        (break_matching, "none of its 9 pairs is matched; run kapture_r2d2_match"),
        (break_matches, "no matches with 9 map images"),
        (break_indices(130, 0), "expected below"),
        (break_indices(0, 130), "expected below"),
        (break_match_file, "expected rows of 3 float64"),
        (break_truth, "expected at least 15 (--min-inliers)"),
    ],
)
def test_a_query_that_fails_says_why_and_the_others_continue(
    exact: LocalizationScene, break_it: Any, message: str
) -> None:
    broken = exact.queries[2]
    break_it(exact, broken)
    report = exact.run(SINGLE)
    assert report.done == 2
    assert list(reasons(report)) == [broken]
    assert message in reasons(report)[broken]
    assert record(exact, broken)["reason"] == reasons(report)[broken]
    assert record(exact, broken)["status"] == "failed"
    assert sorted(poses_of(exact)) == exact.queries[:2]
    poses = (exact.root / "output/poses.txt").read_text()
    assert broken not in poses


def test_a_pose_that_was_found_and_is_lost_leaves_no_trace(
    exact: LocalizationScene,
) -> None:
    exact.run(SINGLE)
    break_truth(exact, exact.queries[0])
    report = exact.run(SINGLE)
    assert (report.done, report.skipped, len(report.failed)) == (0, 2, 1)
    assert sorted(poses_of(exact)) == exact.queries[1:]


def test_pairs_that_no_pose_is_found_from_are_reported(
    exact: LocalizationScene,
) -> None:
    assert exact.run(SINGLE, output="whole").warnings == ()
    first, second = exact.queries[:2]
    for image in exact.mapped[:4]:
        exact.match_file(first, image).unlink()
    for image in exact.mapped:  # fails, which says enough
        exact.match_file(second, image).unlink()
    pairs = [(query, image) for query in exact.queries for image in exact.mapped]
    exact.write_pairs([*pairs, (first, "gone.jpg"), ("x.jpg", "y.jpg")])
    warnings = exact.run(SINGLE).warnings
    assert [text.partition(";")[0] for text in warnings] == [
        "1 images of the pairs are not queries, nor are their partners: 'x.jpg'",
        "1 images that queries are paired with are not in the map and not used: "
        "'gone.jpg'",
        f"4 pairs of 1 queries are not matched: '{first}'",
    ]


def test_other_pairs_and_maps_are_refused(exact: LocalizationScene) -> None:
    observations = exact.map_path / "reconstruction/observations.txt"
    text = observations.read_text(encoding="utf-8")
    observations.write_text(text.replace("r2d2", "sift"), encoding="utf-8")
    with pytest.raises(DatasetError, match="of type sift, expected 'r2d2'"):
        exact.run()
    for name in ("points3d.txt", "observations.txt"):
        observations.with_name(name).write_text("# kapture format: 1.1\n")
    with pytest.raises(ReconstructionError, match="found 0 points"):
        exact.run()
    exact.write_map()
    exact.write_pairs([("x.jpg", "y.jpg")])
    with pytest.raises(DatasetError, match="found no pair with an image of"):
        exact.run()
    assert not (exact.root / "output").exists()


def test_a_map_of_other_keypoints_is_reported(exact: LocalizationScene) -> None:
    sparse_map = localize.read_sparse_map(exact.map_path)
    image = exact.mapped[0]
    changed = dataclasses.replace(sparse_map.images[image], keypoint_count=77)
    images = {**sparse_map.images, image: changed}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            localize,
            "read_sparse_map",
            lambda *_: dataclasses.replace(sparse_map, images=images),
        )
        report = exact.run()
    assert len(report.failed) == 3
    assert "found 130 keypoints of type 'r2d2', but 77 in the map" in (
        report.failed[0].reason
    )


def test_as_many_keypoints_elsewhere_than_in_the_map_are_refused(
    exact: LocalizationScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse_map = localize.read_sparse_map(exact.map_path)
    name = exact.mapped[0]
    of_map = sparse_map.images[name]
    rows = np.fromfile(exact.keypoint_file(name), np.float32).reshape(-1, 3)
    for moved in (0.0, 0.5, 5.0):
        xy = rows[of_map.keypoints, :2].astype(np.float64) + 0.5
        xy[7] += moved
        image = dataclasses.replace(of_map, keypoint_count=len(rows), xy=xy)
        changed = dataclasses.replace(
            sparse_map, images={**sparse_map.images, name: image}
        )
        monkeypatch.setattr(localize, "read_sparse_map", lambda *_, m=changed: m)
        output = f"moved {moved}"  # a finished run would not look at them again
        if moved < 1:
            assert exact.run(output=output).failed == ()
            continue
        with pytest.raises(DatasetError, match="of 1 map images differ"):
            exact.run(output=output)


def test_strict_stops_at_the_first_failure(exact: LocalizationScene) -> None:
    first = exact.queries[0]
    break_feature_file(exact, first)
    strict = dataclasses.replace(QUIET, strict=True, workers=1)
    report = exact.run(SINGLE, strict)
    assert list(reasons(report)) == [first]
    assert report.done == 0


def test_an_output_that_cannot_be_written_is_reported(exact: LocalizationScene) -> None:
    (exact.root / "output").write_text("a file")
    with pytest.raises(OutputError, match="found a file; choose another --output"):
        exact.run()


@pytest.mark.parametrize(
    "setting",
    [
        {"max_error": 0.0},
        {"loss_scale": 0.0},
        {"max_error": float("nan")},
        {"min_inliers": 3},
        {"seed": -1},
        {"rigs": "on"},
        {"focal_length": "known"},
        {"camera_origin": "middle"},
        {"format": "csv"},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    flag = "--" + next(iter(setting)).replace("_", "-")
    with pytest.raises(ConfigError, match=flag):
        LocalizeConfig(**setting)
