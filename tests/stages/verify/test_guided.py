"""Guided matching finds what plain matching left out, and nothing that is wrong."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import kapture
import numpy as np
import numpy.typing as npt
import pytest

import r2d2_kapture as rk
from r2d2_kapture.cli.verify import main
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.types import FloatArray, PairMatches, unit_rows
from tests.commands import one_error_line
from tests.scenes.features import features_at
from tests.scenes.world import (
    CENTER_PP,
    HEIGHT,
    WIDTH,
    Scene,
    pair_matches,
    write_array,
    write_matches,
)
from tests.stages.verify_runs import TYPE, folder, inliers_of, outputs, run

GUIDED = VerifyConfig(guided=True)
LEFT_OUT = 3
"""Of so many matches, one is left out."""


def describe(scene: Scene, name: str, alike: int = 1) -> FloatArray:
    """Descriptors of points, with noise; of each ``alike`` successive ones the same."""
    rng = np.random.default_rng(1)
    points = np.repeat(rng.normal(size=(len(scene.points), 64)), alike, axis=0)
    rows = points[: len(scene.points)]
    noise = np.random.default_rng(scene.names.index(name)).normal(size=rows.shape)
    return unit_rows((rows + 0.2 * noise).astype(np.float32))


def write_descriptors(root: Path, scene: Scene, alike: int = 1) -> Path:
    place = root / "reconstruction" / "descriptors" / TYPE
    for name in scene.names:
        write_array(place / f"{name}.desc", describe(scene, name, alike))
    (place / "descriptors.txt").write_text(
        f"# kapture format: 1.1\n{TYPE}, float32, 64, {TYPE}, L2\n", encoding="utf-8"
    )
    return root


def some_matches(scene: Scene) -> PairMatches:
    rows = np.arange(len(scene.points))
    return pair_matches(np.column_stack([rows, rows])[rows % LEFT_OUT > 0], 0.5)


def write_some_matches(root: Path, scene: Scene) -> Path:
    for pair in itertools.combinations(sorted(scene.names), 2):
        write_matches(root, pair, some_matches(scene))
    return root


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """Images whose matches lack every third point, with descriptors."""
    scene = Scene(times=2, noise=0.2)
    root = write_descriptors(scene.write_kapture(tmp_path / "mapping"), scene)
    return write_some_matches(root, scene)


def read(root: Path) -> dict[tuple[str, str], PairMatches]:
    table = open_matches([root.parent / "verified"], TYPE)
    found = {pair: table.read(*pair) for pair in table.pairs}
    return {pair: matches for pair, matches in found.items() if matches is not None}


def test_matches_left_out_are_found_and_written_everywhere(partly: Path) -> None:
    plain = run(partly).details
    before = read(partly)
    report = run(partly, GUIDED, options=RunOptions(progress=False, force=True))
    after = read(partly)
    assert report.details["guided_matches"] > 0.5 * 15 * 40
    assert "guided_matches" not in plain
    assert report.details["inliers"] == sum(map(len, after.values()))
    assert report.details["inliers"] >= plain["inliers"]
    for pair, matches in after.items():
        # a match is of one point, and each keypoint has one
        assert (matches.indices[:, 0] == matches.indices[:, 1]).all()
        rows = matches.indices[:, 0]
        assert (np.diff(rows) > 0).all() and rows.max() < 120
        assert len(matches) > len(before[pair])
        given = rows % LEFT_OUT > 0
        assert (matches.scores[given] == 0.5).all()
        assert (matches.scores[~given] > 0.7).all() and (matches.scores <= 1.001).all()
    stored = inliers_of(partly.parent / "map.db")
    assert [len(rows) for rows in stored.values()] == [len(m) for m in after.values()]
    assert list(stored.values()) == [m.indices.tolist() for m in after.values()]


def test_known_poses_and_repeated_texture(partly: Path) -> None:
    """Plain matching cannot tell points of one look apart; their places do."""
    scene = Scene(times=2, noise=0.2)
    write_descriptors(partly, scene, alike=4)
    config = VerifyConfig(guided=True, geometry="known_poses")
    report = run(partly, config)
    assert report.details["guided_matches"] > 0.4 * 15 * 40
    indices = np.concatenate([matches.indices for matches in read(partly).values()])
    assert (indices[:, 0] == indices[:, 1]).mean() > 0.97


def test_lines_that_distortion_bends_are_followed(tmp_path: Path) -> None:
    scene = Scene(times=2)
    parameters = [WIDTH, HEIGHT, 500, 500, *CENTER_PP, -0.3, 0.1, 0, 0]
    sensor = kapture.Camera(kapture.CameraType.OPENCV, parameters)
    camera = colmap_camera(sensor, 1, "center")

    def bent(name: str) -> FloatArray:
        rays = scene.poses[name].transform_points(scene.points)
        xy = np.asarray(camera.img_from_cam(rays)) - 0.5
        return np.column_stack([xy, np.full(len(xy), 32)]).astype(np.float32)

    straight = [scene.keypoints(name)[:, :2] for name in scene.names]
    scene.keypoints = bent  # type: ignore[method-assign]
    moved = [np.abs(bent(n)[:, :2] - xy) for n, xy in zip(scene.names, straight)]
    assert np.concatenate(moved).max() > 20
    scene.taken_with(sensor)
    root = write_descriptors(scene.write_kapture(tmp_path / "mapping"), scene)
    write_some_matches(root, scene)
    for geometry in ("estimate", "known_poses"):
        config = VerifyConfig(guided=True, geometry=geometry)  # type: ignore[arg-type]
        report = run(root, config, options=RunOptions(progress=False, force=True))
        assert report.details["guided_matches"] > 0.5 * 15 * 40


def test_planes_are_matched_around_their_homography(tmp_path: Path) -> None:
    scene = Scene(times=2, noise=0.2)
    scene.points[:, 2] = 6 + 0.2 * scene.points[:, 0]
    root = write_descriptors(scene.write_kapture(tmp_path / "mapping"), scene)
    run(write_some_matches(root, scene), GUIDED)
    log = (folder(root) / "two_view_geometries.jsonl").read_text("utf-8")
    found = [json.loads(line) for line in log.splitlines()]
    assert {item["H"] is not None for item in found} == {True}
    assert all(item["guided"] > 12 for item in found)


def test_any_number_of_workers_gives_the_same_and_resuming_does_nothing(
    partly: Path,
) -> None:
    run(partly, GUIDED, options=RunOptions(progress=False, workers=1))
    first = outputs(partly)
    again = run(partly, GUIDED)
    assert (again.done, again.skipped) == (0, 15)
    run(partly, GUIDED, options=RunOptions(progress=False, workers=3, force=True))
    assert outputs(partly) == first


def test_pairs_of_changed_descriptors_are_verified_again(partly: Path) -> None:
    run(partly, GUIDED)
    scene = Scene(times=2, noise=0.2)
    name = scene.names[0]
    file = partly / "reconstruction" / "descriptors" / TYPE / f"{name}.desc"
    write_array(file, -describe(scene, name))
    report = run(partly, GUIDED)
    assert (report.done, report.skipped) == (5, 10)
    # without the setting, they do not count
    run(partly, options=RunOptions(progress=False, force=True))
    write_array(file, describe(scene, name))
    assert run(partly).skipped == 15


def test_matches_of_the_two_settings_do_not_mix(
    partly: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(partly)
    assert main([*command(partly), "--guided"]) == 2
    assert "guided: default, not True" in one_error_line(capsys)


def test_missing_descriptors_are_one_line(
    partly: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = partly / "reconstruction" / "descriptors" / TYPE
    (place / "descriptors.txt").unlink()
    assert main([*command(partly), "--guided"]) == 2
    line = one_error_line(capsys)
    assert "found no descriptors" in line and "verify without --guided" in line
    assert main(command(partly)) == 0


def test_an_image_without_descriptors_fails_with_its_pairs(partly: Path) -> None:
    name = Scene(times=2).names[0]
    (partly / "reconstruction" / "descriptors" / TYPE / f"{name}.desc").unlink()
    report = run(partly, GUIDED)
    assert report.done == 10 and len(report.failed) == 5
    assert all(name in item.reason for item in report.failed)


def command(mapping: Path) -> list[str]:
    places = ("--mapping", "--features", "--matches")
    return [
        *itertools.chain.from_iterable((flag, str(mapping)) for flag in places),
        *("--database", str(mapping.parent / "map.db")),
        *("--output", str(mapping.parent / "verified"), "--quiet"),
    ]


def test_two_images_in_python() -> None:
    scene = Scene(times=2, noise=0.2)
    features = [
        features_at(scene.keypoints(name)[:, :2], describe(scene, name))
        for name in scene.names[:2]
    ]
    given = some_matches(scene)
    plain = rk.verify(*features, given)
    found = rk.verify(*features, given, guided=True)
    assert len(found) > len(plain) + 15
    assert len(found.matches) > len(given)
    np.testing.assert_array_equal(found.matches.indices[: len(given)], given.indices)
    inliers: npt.NDArray[np.int64] = found.inlier_matches.indices
    assert (inliers[:, 0] == inliers[:, 1]).all()
