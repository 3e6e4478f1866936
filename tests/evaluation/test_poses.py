"""Errors of poses whose truth is known, what counts as found, and alignment."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import DatasetError, ReconstructionError
from r2d2_kapture.evaluation.alignment import align_poses
from r2d2_kapture.evaluation.pose_tables import error_csv, text_table
from r2d2_kapture.evaluation.poses import (
    conditions_by_folder,
    evaluate_poses,
    pose_errors,
)
from tests.scenes.poses import assert_same_pose, moved, random_poses, rigid3d

NAMES = [f"{number:03d}.jpg" for number in range(30)]
SIMILARITY = pycolmap.Sim3d(
    0.37,
    pycolmap.Rotation3d(Rotation.from_rotvec([1.0, 2.0, -0.5]).as_quat()),
    np.array([10.0, -3.0, 5.0]),
)
"""Of the truth from the estimate."""


def in_own_frame(poses):
    """The estimate that SIMILARITY brings back to these poses."""
    move = SIMILARITY.inverse().transform_camera_world
    return {name: move(pose) for name, pose in poses.items()}


def noisy(poses, position, degrees, seed=1):
    rng = np.random.default_rng(seed)
    result = {}
    for name, pose in poses.items():
        turn = Rotation.from_rotvec(np.radians(degrees) * rng.normal(size=3))
        rotation = Rotation.from_quat(pose.rotation.quat).inv() * turn
        center = pose.inverse().translation + position * rng.normal(size=3)
        result[name] = rigid3d(rotation, center)
    return result


def assert_similarity(found, atol):
    assert found.scale == pytest.approx(SIMILARITY.scale, rel=atol)
    turn = found.rotation * SIMILARITY.rotation.inverse()
    assert turn.angle() < atol
    np.testing.assert_allclose(
        found.translation, SIMILARITY.translation, rtol=0, atol=20 * atol
    )


# errors


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 0.035, 2.0, 90.0, 179.9, 180.0])
@pytest.mark.parametrize("offset", [(0, 0, 0), (3, 0, 4), (0, 1e-6, 0)])
def test_errors_are_the_distance_and_the_angle(degrees, offset):
    true = random_poses(["a"])
    (error,) = pose_errors(true, {"a": moved(true["a"], offset, degrees)})
    assert error.position == pytest.approx(np.linalg.norm(offset), abs=1e-12)
    assert error.rotation == pytest.approx(degrees, abs=1e-9)
    assert error.localized


def test_the_distance_is_between_centres_and_the_sign_of_a_quaternion_no_rotation() -> (
    None
):
    true = {"a": rigid3d(Rotation.identity(), [100.0, 0.0, 0.0])}
    turned = {"a": rigid3d(Rotation.from_rotvec([0, 0, 1.0]), [100.0, 0.0, 0.0])}
    (error,) = pose_errors(true, turned)
    assert error.position == pytest.approx(0, abs=1e-12)
    assert error.rotation == pytest.approx(np.degrees(1.0))
    pose = random_poses(["a"])["a"]
    flipped = pycolmap.Rigid3d(
        pycolmap.Rotation3d(-pose.rotation.quat), pose.translation
    )
    (error,) = pose_errors({"a": pose}, {"a": flipped})
    assert error.rotation == pytest.approx(0, abs=1e-9)


def test_missing_images_are_infinitely_far_and_others_are_left_out() -> None:
    true = random_poses(["b", "a"])
    errors = pose_errors(true, {"a": true["a"], "z": true["b"]})
    assert [error.name for error in errors] == ["a", "b"]
    assert [error.localized for error in errors] == [True, False]
    assert errors[1].position == errors[1].rotation == math.inf


def test_the_same_errors_in_any_world_frame():
    true = random_poses(NAMES)
    estimated = noisy(true, 0.1, 3.0)
    world = pycolmap.Sim3d(1.0, SIMILARITY.rotation, SIMILARITY.translation)
    expected = pose_errors(true, estimated)
    found = pose_errors(
        {n: world.transform_camera_world(p) for n, p in true.items()},
        {n: world.transform_camera_world(p) for n, p in estimated.items()},
    )
    for one, other in zip(found, expected):
        assert one.position == pytest.approx(other.position, rel=1e-9)
        assert one.rotation == pytest.approx(other.rotation, rel=1e-9)


# summaries


def four_images():
    """Errors of 1, 2, 3 m at 1, 20, 3 degrees, and an image without estimate."""
    true = random_poses("abcd")
    estimated = {
        "a": moved(true["a"], (1, 0, 0), 1),
        "b": moved(true["b"], (0, 2, 0), 20),
        "c": moved(true["c"], (0, 0, 3), 3),
    }
    return true, estimated


def test_medians_means_counts_and_recall() -> None:
    total = evaluate_poses(*four_images()).total
    assert (total.images, total.localized, total.missing) == (4, 3, 1)
    assert total.median_position == pytest.approx(2)
    assert total.median_rotation == pytest.approx(3)
    assert total.mean_position == pytest.approx(2)
    assert total.mean_rotation == pytest.approx(8)
    assert total.median_position_of_all == pytest.approx(2.5)  # of 1, 2, 3, inf
    assert total.median_rotation_of_all == pytest.approx(11.5)  # of 1, 3, 20, inf
    thresholds = ((0.5, 90.0), (1.5, 2.0), (5.0, 2.0), (5.0, 10.0), (5.0, 30.0))
    evaluation = evaluate_poses(*four_images(), thresholds=thresholds)
    assert evaluation.total.recall == (0.0, 0.25, 0.25, 0.5, 0.75)
    evaluation = evaluate_poses(*four_images())
    assert evaluation.thresholds == ((0.25, 2), (0.5, 5), (5, 10))
    true = {"a": rigid3d(Rotation.identity(), [0, 0, 0])}
    estimated = {"a": rigid3d(Rotation.identity(), [0.25, 0, 0])}
    evaluation = evaluate_poses(true, estimated, thresholds=((0.25, 2.0),))
    assert evaluation.total.recall == (1.0,)


def test_half_missing_leaves_no_median_of_all_and_no_truth_is_refused() -> None:
    true = random_poses("abcd")
    total = evaluate_poses(true, {n: true[n] for n in "ab"}).total
    assert total.median_position == pytest.approx(0, abs=1e-12)
    assert total.median_position_of_all is None
    assert total.median_rotation_of_all is None
    with pytest.raises(DatasetError, match="found no true pose"):
        evaluate_poses({}, random_poses("a"))


@pytest.mark.parametrize("align", [False, True])
def test_nothing_localized_is_a_result(align):
    evaluation = evaluate_poses(random_poses("ab"), {}, align=align)
    total = evaluation.total
    assert (total.images, total.localized, total.recall) == (2, 0, (0.0, 0.0, 0.0))
    assert total.median_position is None and total.mean_rotation is None
    assert evaluation.alignment is None
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_json_holds_the_figures_and_no_infinity() -> None:
    true, estimated = four_images()
    evaluation = evaluate_poses(
        true, estimated, conditions={"far": ["c", "d"]}, thresholds=((5.0, 10.0),)
    )
    plain = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert plain["total"]["median_position"] == evaluation.total.median_position
    assert plain["total"]["recall"] == [
        {"position": 5.0, "rotation": 10.0, "share": 0.5}
    ]
    assert plain["conditions"]["far"]["missing"] == 1
    assert plain["conditions"]["far"]["median_position_of_all"] is None
    assert plain["alignment"] is None


# conditions


def test_conditions_hold_their_own_images():
    true, estimated = four_images()
    evaluation = evaluate_poses(
        true,
        estimated,
        conditions={"near": ["a", "b"], "far": ["c", "d", "z"], "none": []},
        thresholds=((5.0, 10.0),),
    )
    near, far, none = evaluation.conditions.values()
    assert list(evaluation.conditions) == ["near", "far", "none"]
    assert (near.images, near.localized, near.recall) == (2, 2, (0.5,))
    assert (far.images, far.localized, far.recall) == (2, 1, (0.5,))
    assert near.median_position == pytest.approx(1.5)
    assert far.median_position == pytest.approx(3)
    assert (none.images, none.recall, none.median_position) == (0, (0.0,), None)


@pytest.mark.parametrize(
    "names, expected",
    [
        (
            ["query/day/a.jpg", "query/night/x/b.jpg", "query/day/c.jpg"],
            {
                "day": ("query/day/a.jpg", "query/day/c.jpg"),
                "night": ("query/night/x/b.jpg",),
            },
        ),
        (["b.jpg", "day/a.jpg"], {".": ("b.jpg",), "day": ("day/a.jpg",)}),
        (["q/b.jpg", "q/n/a.jpg"], {".": ("q/b.jpg",), "n": ("q/n/a.jpg",)}),
        (["q/x/b.jpg", "q/x/a.jpg"], {".": ("q/x/a.jpg", "q/x/b.jpg")}),
        (["a.jpg"], {".": ("a.jpg",)}),
        (["day/a.jpg", "daylight/a.jpg"], None),
    ],
)
def test_folders_in_which_names_differ(names, expected):
    expected = expected or {"day": (names[0],), "daylight": (names[1],)}
    assert conditions_by_folder(names) == expected


# alignment


def cameras(kind):
    """Cameras of random orientation, placed so that centres tell more or less."""
    rng = np.random.default_rng(3)
    centers = {
        "space": rng.normal(size=(30, 3)),
        "plane": rng.normal(size=(30, 3)) * [1, 1, 0],
        "line": np.outer(np.arange(30), [1.0, 2.0, 3.0]) / 30,
        "two": np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]),
    }[kind]
    rotations = Rotation.random(len(centers), rng=rng)
    return {n: rigid3d(r, c) for n, r, c in zip(NAMES, rotations, centers)}


@pytest.mark.parametrize("kind", ["space", "plane", "line", "two"])
def test_alignment_recovers_a_similarity(kind):
    true = cameras(kind)
    estimated = in_own_frame(true)
    alignment = align_poses(true, estimated)
    assert_similarity(alignment.truth_from_estimate, 1e-9)
    assert alignment.images == len(true)
    assert alignment.position_rms < 1e-9 and alignment.rotation_median < 1e-7
    evaluation = evaluate_poses(true, estimated, align=True)
    assert evaluation.total.recall == (1.0, 1.0, 1.0)
    for name, pose in true.items():
        assert_same_pose(evaluation.estimated[name], pose, atol=1e-8)
    apart = evaluate_poses(true, estimated)
    assert apart.total.recall == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["space", "plane", "line"])
def test_alignment_of_noisy_poses_withstands_gross_errors(kind) -> None:
    true = cameras(kind)
    alignment = align_poses(true, in_own_frame(noisy(true, 0.005, 0.5)))
    assert_similarity(alignment.truth_from_estimate, 0.01)
    # median length of a normal vector of three coordinates: 1.54 deviations
    assert alignment.position_median == pytest.approx(1.54 * 0.005, rel=0.5)
    assert alignment.rotation_median == pytest.approx(1.54 * 0.5, rel=0.5)
    assert alignment.position_median <= alignment.position_rms * 1.2
    estimated = noisy(true, 0.005, 0.5)
    wild = random_poses(NAMES[::3] + NAMES[1::9], seed=8)
    for name, pose in wild.items():
        estimated[name] = moved(pose, (5, 5, 5))
    assert len(wild) > 0.4 * len(true)
    alignment = align_poses(true, in_own_frame(estimated))
    assert_similarity(alignment.truth_from_estimate, 0.02)
    good = evaluate_poses(
        true, in_own_frame(estimated), align=True, thresholds=((0.05, 3.0),)
    )
    assert good.total.recall[0] == pytest.approx(1 - len(wild) / len(true))


@pytest.mark.parametrize("axis, degrees", [("y", 30.0), ("x", 180.0)])
def test_centres_alone_align_cameras_of_other_axes(axis, degrees):
    """Another convention of camera axes is an error of rotation, not of position."""
    true = cameras("space")
    turn = Rotation.from_euler(axis, degrees, degrees=True).as_quat()
    turned = pycolmap.Rigid3d(pycolmap.Rotation3d(turn), np.zeros(3))
    found = {name: turned * pose for name, pose in noisy(true, 0.005, 0.5).items()}
    evaluation = evaluate_poses(true, in_own_frame(found), align=True)
    assert evaluation.total.median_position == pytest.approx(1.54 * 0.005, rel=0.5)
    assert evaluation.total.median_rotation == pytest.approx(degrees, abs=0.5)


@pytest.mark.parametrize("about_the_line", range(0, 360, 40))
def test_orientations_settle_what_a_line_of_centres_leaves_open(about_the_line):
    true = noisy(cameras("line"), 1e-9, 0.0)
    direction = np.array([1.0, 2.0, 3.0]) / math.sqrt(14)
    turn = Rotation.from_rotvec(np.radians(about_the_line) * direction).as_quat()
    own = pycolmap.Sim3d(2.0, pycolmap.Rotation3d(turn), np.zeros(3))
    estimated = {n: own.transform_camera_world(p) for n, p in true.items()}
    evaluation = evaluate_poses(true, noisy(estimated, 1e-9, 0.1), align=True)
    assert evaluation.total.median_rotation < 0.5
    assert evaluation.total.median_position < 1e-7


def test_alignment_is_the_same_each_time():
    true = random_poses([str(number) for number in range(60)])
    estimated = in_own_frame(noisy(true, 0.01, 1.0))
    first = align_poses(true, estimated).to_json()
    shuffled = dict(reversed(estimated.items()))
    assert align_poses(dict(reversed(true.items())), shuffled).to_json() == first


def test_one_image_or_one_place_cannot_be_aligned():
    true = random_poses(NAMES[:5])
    with pytest.raises(ReconstructionError, match="found 1 images with a true and an"):
        evaluate_poses(true, {NAMES[0]: true[NAMES[0]]}, align=True)
    for count in (2, 5):
        poses = {name: true[name] for name in NAMES[:count]}
        still = {
            name: pycolmap.Rigid3d(pose.rotation, np.zeros(3))
            for name, pose in poses.items()
        }
        for pair in ((poses, still), (still, poses)):
            with pytest.raises(ReconstructionError, match="at one place"):
                align_poses(*pair)


def test_a_synthetic_reconstruction_in_another_frame():
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=12)
    reconstruction = pycolmap.synthesize_dataset(options)
    true = {i.name: i.cam_from_world() for i in reconstruction.images.values()}
    reconstruction.transform(SIMILARITY.inverse())
    estimated = {i.name: i.cam_from_world() for i in reconstruction.images.values()}
    evaluation = evaluate_poses(true, estimated, align=True)
    assert_similarity(evaluation.alignment.truth_from_estimate, 1e-9)
    assert evaluation.total.mean_position < 1e-9
    assert len(true) >= 12


# tables


def test_the_table_reads_without_the_code_and_reports_alignment() -> None:
    true, estimated = four_images()
    evaluation = evaluate_poses(true, estimated, conditions={"night": ["c", "d"]})
    lines = text_table({"ours": evaluation, "nothing": evaluate_poses(true, {})})
    header, ours, night, nothing, note = lines.splitlines()
    assert header.split("  ")[0] == "estimate" and "5 m 10 deg" in header
    assert "all" in ours and "2.0000 m 3.0000 deg" in ours
    assert "2.5000 m 11.5000 deg" in ours and ours.endswith("50.0 %")
    assert "night" in night and "inf" in night
    assert nothing.split()[:5] == ["nothing", "all", "4", "0", "-"]
    assert "missing images infinitely far" in note
    true = cameras("space")
    table = text_table({"map": evaluate_poses(true, in_own_frame(true), align=True)})
    assert "map: aligned by a scale of 0.37 over 30 images" in table


def test_the_csv_has_a_line_an_image():
    true = random_poses(["a, b.jpg", "c.jpg"])
    evaluation = evaluate_poses(true, {"c.jpg": moved(true["c.jpg"], (3, 0, 4))})
    text = error_csv({"x": evaluation}, {"day": ["c.jpg"], "wet": ["c.jpg"]})
    header, missing, found = csv.reader(io.StringIO(text))
    assert header[:4] == ["estimate", "image", "conditions", "localized"]
    assert missing == ["x", "a, b.jpg", "", "0", "", ""]
    assert found[:4] == ["x", "c.jpg", "day;wet", "1"]
    assert float(found[4]) == pytest.approx(5)
