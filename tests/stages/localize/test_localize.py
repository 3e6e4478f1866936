"""Localization in a scene of exact projections, whose poses are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pixel_origins import read_origin
from r2d2_kapture.io.kapture.pose_files import read_submission
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.types import Report
from tests.scenes.localization import LocalizationScene, position_error, rotation_error
from tests.scenes.world import CORNER_PP, FOCAL, HEIGHT, UNKNOWN, WIDTH, pinhole

SINGLE = LocalizeConfig(rigs="off")
CORNER = pinhole([float(value) for value in CORNER_PP])


def poses_of(scene: LocalizationScene, output: str = "output") -> dict[str, Any]:
    return read_camera_poses(open_dataset(scene.root / output)).cam_from_world


def assert_positions(scene: LocalizationScene, tolerance: float) -> None:
    for name, pose in poses_of(scene).items():
        assert position_error(pose, scene.truth(name)) < tolerance


def assert_turned(scene: LocalizationScene, output: str) -> None:
    for name, pose in poses_of(scene, output).items():
        assert rotation_error(pose, scene.truth(name)) > 5e-4


def record(
    scene: LocalizationScene, name: str, output: str = "output"
) -> dict[str, Any]:
    path = scene.root / output / "queries" / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def reasons(report: Report) -> dict[str, str]:
    return {failure.name: failure.reason for failure in report.failed}


@pytest.mark.parametrize("rigs", ["auto", "off"])
def test_exact_matches_give_exact_poses(exact: LocalizationScene, rigs: Any) -> None:
    report = exact.run(LocalizeConfig(rigs=rigs))
    assert (report.done, report.skipped, report.failed) == (3, 0, ())
    assert report.details["localized"] == 3
    assert report.details["in_rigs"] == (2 if rigs == "auto" else 0)
    found = poses_of(exact)
    assert sorted(found) == exact.queries
    for name, pose in found.items():
        assert position_error(pose, exact.truth(name)) < 1e-4
        assert rotation_error(pose, exact.truth(name)) < 1e-4


def test_outliers_are_distinguished_from_inliers(noisy: LocalizationScene) -> None:
    noisy.run(SINGLE)
    for name, pose in poses_of(noisy).items():
        assert position_error(pose, noisy.truth(name)) < 0.02
        assert rotation_error(pose, noisy.truth(name)) < 0.005
        found = record(noisy, name)
        # every point is matched truly with some of nine map images
        assert 110 <= found["inliers"] <= 120
        assert found["matches"] == 9 * 120
        assert found["correspondences"] > 300


def test_every_file_tells_the_same_poses(noisy: LocalizationScene) -> None:
    noisy.run()
    found = poses_of(noisy)
    query = open_dataset(noisy.query)
    text = read_submission(noisy.root / "output/poses.txt", query, "gangnam")
    assert list(text.cam_from_world) == list(found) == noisy.queries
    for name, pose in found.items():
        numbers = record(noisy, name)["cam_from_world"]
        x, y, z, w = text.cam_from_world[name].rotation.quat
        assert numbers[:4] == pytest.approx([w, x, y, z], abs=1e-15)
        assert numbers[4:] == pose.translation.tolist()
        assert numbers[4:] == text.cam_from_world[name].translation.tolist()
    output = open_dataset(noisy.root / "output")
    for sensor_id, sensor in query.data.cameras.items():
        assert output.data.sensors[sensor_id].sensor_params == sensor.sensor_params
    assert output.data.rigs == query.data.rigs


def test_poses_are_written_as_visuallocalization_net_names_them(
    exact: LocalizationScene,
) -> None:
    exact.run(LocalizeConfig(format="robotcar"))
    lines = (exact.root / "output/poses.txt").read_text().splitlines()
    assert [line.split(" b.jpg")[0] for line in lines] == [
        "left/3",
        "right/3",
        "walker/3",
    ]
    with pytest.raises(DatasetError, match="could be image"):
        exact.run(LocalizeConfig(format="aachen"))
    # the naming decides no pose: nothing is refused, nothing computed again
    assert exact.run(LocalizeConfig(format="gangnam")).skipped == 3


def test_a_rig_is_better_than_its_cameras(tmp_path: Path) -> None:
    single, joint = [], []
    for seed in range(6):
        scene = LocalizationScene(tmp_path / str(seed), noise=1.0, seed=seed)
        rig = [name for name in scene.queries if "walker" not in name]
        for config, errors in ((SINGLE, single), (LocalizeConfig(), joint)):
            scene.run(config, output=config.rigs)
            found = poses_of(scene, config.rigs)
            errors += [position_error(found[n], scene.truth(n)) for n in rig]
        left, right = (poses_of(scene, "auto")[name] for name in rig)
        true_left, true_right = (scene.truth(name) for name in rig)
        between = (left * right.inverse()) * (
            true_left * true_right.inverse()
        ).inverse()
        assert np.linalg.norm(between.translation) < 1e-9
    assert np.mean(joint) < 0.9 * np.mean(single)
    assert record(scene, rig[0], "auto")["rig"] == rig
    assert record(scene, rig[0], "off")["rig"] == []


def test_a_camera_of_a_rig_without_pairs_goes_with_the_others(
    exact: LocalizationScene,
) -> None:
    left, right, _ = exact.queries
    exact.write_pairs([(right, image) for image in exact.mapped])
    report = exact.run()
    assert report.done == 2
    assert position_error(poses_of(exact)[left], exact.truth(left)) < 1e-4
    assert record(exact, left)["inliers"] == 0
    assert record(exact, right)["inliers"] == 120
    alone = exact.run(SINGLE, output="single")
    assert alone.done == 1
    assert "no pairs" in reasons(alone)[left]


def test_a_rig_without_any_match_fails_and_does_not_crash(
    exact: LocalizationScene,
) -> None:
    left, right, walker = exact.queries
    for name in (left, right):
        for image in exact.mapped:
            exact.replace_matches(name, image, np.zeros((0, 2)))
    report = exact.run()
    assert report.done == 1
    assert set(reasons(report)) == {left, right}
    assert "no matches with 9 map images" in reasons(report)[left]


@pytest.mark.parametrize("how", ["unknown", "estimate", "refine"])
def test_focal_lengths_are_found(noisy: LocalizationScene, how: Any) -> None:
    wrong = pinhole([319.5, 239.5])
    factor = 1.02 if how == "refine" else 1.8
    wrong.sensor_params[3:5] = [str(FOCAL * factor)] * 2
    camera = UNKNOWN if how == "unknown" else wrong
    noisy.write_query({sensor: camera for sensor in ("left", "right", "walker")})
    config = LocalizeConfig(focal_length="auto" if how == "unknown" else how)
    report = noisy.run(config)
    assert report.details["with_focal_length_found"] == 3
    assert report.details["in_rigs"] == 0
    sensors = open_dataset(noisy.root / "output").data.cameras
    for name, pose in poses_of(noisy).items():
        assert position_error(pose, noisy.truth(name)) < 0.05
        model, width, height, focal, *rest = sensors[name.split("/")[1]].sensor_params
        assert (width, height) == (str(WIDTH), str(HEIGHT))
        assert float(focal) == pytest.approx(FOCAL, rel=0.01)
        if how == "unknown":
            assert model == "SIMPLE_RADIAL"
            # COLMAP's middle of the image, in kapture's pixel origin
            assert [float(value) for value in rest[:2]] == [319.5, 239.5]
            assert abs(float(rest[2])) < 0.05
        assert record(noisy, name)["camera"][0] == model


def test_unknown_cameras_of_one_sensor_are_distinguished(
    exact: LocalizationScene,
) -> None:
    exact.write_query()
    records = exact.query / "sensors/records_camera.txt"
    lines = [f"{time}, one, {name}\n" for time, name in enumerate(exact.queries)]
    records.write_text("# kapture format: 1.1\n" + "".join(lines), encoding="utf-8")
    sensors = exact.query / "sensors/sensors.txt"
    with open(sensors, "a", encoding="utf-8") as file:
        file.write(f"one, , camera, UNKNOWN_CAMERA, {WIDTH}, {HEIGHT}\n")
    exact.run()
    output = open_dataset(exact.root / "output")
    used = {sensor for _, sensor, _ in kapture.flatten(output.data.records_camera)}
    assert used == {"one@0", "one@1", "one@2"}
    for sensor_id in used:
        focal = float(output.data.sensors[sensor_id].sensor_params[3])
        assert focal == pytest.approx(FOCAL, rel=1e-3)
    assert_positions(exact, 1e-2)


@pytest.mark.parametrize("named", ["auto", "corner"])
def test_principal_points_and_keypoints_share_one_origin(
    exact: LocalizationScene, named: Any
) -> None:
    exact.write_query(dict.fromkeys(("left", "right", "walker"), CORNER))
    report = exact.run(LocalizeConfig(camera_origin=named))
    assert report.details["camera_origin"] == "corner"
    assert_positions(exact, 1e-4)
    exact.run(LocalizeConfig(camera_origin="center"), output="wrong")
    assert_turned(exact, "wrong")


def test_queries_of_colmap_keep_their_keypoints(exact: LocalizationScene) -> None:
    exact.write_query(dict.fromkeys(("left", "right", "walker"), CORNER))
    described = exact.features / "reconstruction/keypoints/r2d2/keypoints.txt"
    described.write_text("# kapture format: 1.1\nr2d2, float32, 2\n")
    for name in exact.scene.names:
        path = exact.keypoint_file(name)
        rows = np.fromfile(path, np.float32).reshape(-1, 3)
        (rows[:, :2] + np.float32(0.5)).tofile(path)
    report = exact.run()
    assert report.details["keypoint_origin"] == "corner"
    assert "--keypoint-origin center" in report.warnings[0]
    assert_positions(exact, 1e-4)
    assert read_origin(exact.root / "output" / "sensors") == "corner"
    exact.run(LocalizeConfig(keypoint_origin="center"), output="wrong")
    assert_turned(exact, "wrong")


def test_the_least_number_of_inliers_counts_distinct_points(
    exact: LocalizationScene,
) -> None:
    name = exact.queries[2]
    for image in exact.mapped:
        chosen = np.arange(20)
        rows = np.column_stack([exact.rows[name][chosen], exact.rows[image][chosen]])
        exact.replace_matches(name, image, rows)
    enough = exact.run(LocalizeConfig(rigs="off", min_inliers=20), output="enough")
    assert enough.done == 3
    assert record(exact, name, "enough")["inliers"] == 20
    few = exact.run(LocalizeConfig(rigs="off", min_inliers=21), output="few")
    assert "20 correspondences with the map, 0 of them" in reasons(few)[name]
    # one point seen by many keypoints is still one point
    image = exact.mapped[0]
    rows = np.column_stack([exact.rows[name], np.full(120, exact.rows[image][0])])
    for other in exact.mapped:
        exact.replace_matches(name, other, np.zeros((0, 2)))
    exact.replace_matches(name, image, rows)
    repeated = exact.run(LocalizeConfig(rigs="off", min_inliers=4), output="repeated")
    assert name in reasons(repeated)


def test_pairs_may_name_the_map_image_first_and_images_not_in_the_map(
    exact: LocalizationScene,
) -> None:
    pairs = [(image, query) for query in exact.queries for image in exact.mapped]
    exact.write_pairs([*pairs, (exact.queries[0], "gone.jpg"), ("x.jpg", "y.jpg")])
    report = exact.run(SINGLE)
    assert report.done == 3
    assert record(exact, exact.queries[0])["paired"] == 10
    assert report.details["pairs_of_no_query"] == 1
    assert report.details["such_as"] == "x.jpg"


def test_a_query_that_is_in_the_map_keeps_its_pairs(exact: LocalizationScene) -> None:
    first, second = exact.mapped[:2]
    exact.queries = [first, second]
    exact.write_query()
    exact.replace_matches(
        first, second, np.column_stack([exact.rows[first], exact.rows[second]])
    )
    exact.write_pairs([(first, second), (second, first)])
    report = exact.run(SINGLE)
    assert report.failed == ()
    for name in (first, second):
        assert record(exact, name)["paired"] == 1
        assert position_error(poses_of(exact)[name], exact.truth(name)) < 1e-4


def test_places_that_share_no_points_are_tried_apart(
    exact: LocalizationScene,
) -> None:
    # two places: three images see the first 90 points, six the others
    small, large = exact.mapped[:3], exact.mapped[3:]
    seen = {name: range(90) for name in small} | {n: range(90, 120) for n in large}
    exact.write_map(seen)
    report = exact.run(SINGLE)
    assert report.done == 3
    tried = record(exact, exact.queries[0])["tried"]
    assert [item["map_images"] for item in tried] == [9, 6, 3]
    assert [item["inliers"] for item in tried] == [120, 30, 90]
    assert_positions(exact, 1e-4)
    together = LocalizeConfig(rigs="off", covisibility_clustering=False)
    exact.run(together, output="together")
    assert len(record(exact, exact.queries[0], "together")["tried"]) == 1
