"""Cambridge, Extended CMU and RobotCar in miniature: cameras, rigs and poses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import kapture
import numpy as np
import pycolmap
import pytest
from kapture.io.records import TransferAction
from tools.kapture_import_Extended_CMU_Seasons import import_extended_cmu_seasons
from tools.kapture_import_RobotCar_Seasons import import_robotcar_seasons

from pipelines import cambridge_landmarks, extended_cmu_seasons, robotcar_seasons
from r2d2_kapture.cli.pipeline import Recipe
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pose_files import read_pose_file
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from tests.commands import one_error_line
from tests.scenes.benchmarks import (
    Miniature,
    center,
    far,
    pinhole,
    square,
    typed,
    view,
    words,
    write_lines,
    wxyz,
)

MAPPING, QUERIES = (0, 1, 2, 3, 4), (0.5, 2.5)
HEADER = [
    "Visual Landmark Dataset V1",
    "ImageFile, Camera Position [X Y Z W P Q R]",
    "",
]
FOCAL, RADIAL = 500.0, 0.08


def command(mini: Miniature, output: Path, *more: str) -> list[str]:
    return typed(mini.root, mini.root.parent / "features", output, *more)


def write_cambridge(root: Path) -> Miniature:
    """A landmark whose camera has the distortion of VisualSFM's model."""
    mini = Miniature(root / "Shop Façade")
    parameters = [FOCAL, 320, 240, -RADIAL]
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=640, height=480, params=parameters
    )
    model = []
    for split, sequence, numbers in (("train", 1, MAPPING), ("test", 2, QUERIES)):
        lines = list(HEADER)
        for index, number in enumerate(numbers, 1):
            name, pose = f"seq{sequence}/frame{index:05}", view(number)
            mini.take(f"{name}.png", f"{name}.png", camera, pose)
            rotation, place = wxyz(pose.rotation), center(pose)
            lines.append(words(f"{name}.png", place, rotation))
            model.append(
                words(f"{name}.jpg", [FOCAL], rotation, place, [RADIAL]) + " 0"
            )
        write_lines(mini.root / f"dataset_{split}.txt", lines)
    nvm = ["NVM_V3", "", str(len(model)), *model, "", "0"]
    write_lines(mini.root / "reconstruction.nvm", nvm)
    mini.write_features(root / "features")
    return mini


@pytest.fixture(scope="module")
def cambridge(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_cambridge(tmp_path_factory.mktemp("cambridge"))


def test_cambridge(cambridge: Miniature, tmp_path: Path) -> None:
    assert cambridge_landmarks.main(command(cambridge, tmp_path / "work")) == 0
    poses = read_pose_file(tmp_path / "work/Shop Façade/submission.txt")
    assert len(poses) == 2
    assert max(far(poses, cambridge.truth)) < 1e-3
    report = json.loads((tmp_path / "work/benchmark_report.json").read_text())
    assert report["results"][0]["median_position"] < 1e-3
    assert report["mean_of_medians"]["rotation"] < 1e-3


CMU_CAMERAS = {
    "c0": [868.99, 866.06, 525.94, 420.04, -0.399431, 0.188924, 0.000153, 0.000571],
    "c1": [873.38, 876.49, 529.32, 397.27, -0.397066, 0.181925, 0.000176, -0.000579],
}


def cmu_name(number: float, camera: str) -> str:
    time = int(10 * number)
    return f"img_{time:05}_{camera}_{1303398475046031 + time}us.jpg"


def write_cmu(root: Path) -> Miniature:
    """A slice of two cameras that look apart; queries of one have public poses."""
    mini = Miniature(root / "slice2")
    lines = ["# Camera ID, model, width, height, parameters", ""]
    cameras = {}
    for name, parameters in CMU_CAMERAS.items():
        lines.append(words(name, "OPENCV", [1024, 768], parameters))
        shifted = np.array(parameters)
        shifted[2:4] += 0.5  # COLMAP's origin
        cameras[name] = pycolmap.Camera(
            model="OPENCV", width=1024, height=768, params=shifted
        )
    write_lines(root / "intrinsics.txt", lines)
    lists: dict[str, list[str]] = {"database": [], "query": [], "poses": []}
    for folder, numbers in (("database", MAPPING), ("query", QUERIES)):
        for number in numbers:
            for camera, turn in (("c0", -0.05), ("c1", 0.05)):
                name, pose = cmu_name(number, camera), view(number, turn)
                mini.take(name, f"{folder}/{name}", cameras[camera], pose)
                line = words(name, wxyz(pose.rotation), center(pose))
                lists[folder].append(line if folder == "database" else name)
                if folder == "query" and camera == "c0":
                    lists["poses"].append(line)
    for name in ("ground-truth-database-images", "test-images"):
        key = "database" if name.startswith("ground") else "query"
        write_lines(mini.root / f"{name}-slice2.txt", lists[key])
    write_lines(
        mini.root / "camera-poses" / "slice-2-gt-query-images.txt", lists["poses"]
    )
    mini.write_features(root / "features")
    return mini


@pytest.fixture(scope="module")
def cmu(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_cmu(tmp_path_factory.mktemp("cmu"))


def test_extended_cmu(
    cmu: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extended_cmu_seasons.main(command(cmu, tmp_path / "work")) == 0
    assert "2 images of" in capsys.readouterr().out  # have no public pose
    poses = read_pose_file(tmp_path / "work/submission.txt")
    assert set(poses) == {cmu_name(n, c) for n in QUERIES for c in CMU_CAMERAS}
    assert max(far(poses, cmu.truth)) < 1e-3
    (result,) = json.loads((tmp_path / "work/benchmark_report.json").read_text())[
        "results"
    ]
    assert result["images"] == 2 and result["recall"][0]["share"] == 1
    import_extended_cmu_seasons(
        str(cmu.root.parent), str(tmp_path / "k"), [2], False, True, TransferAction.skip
    )
    for theirs, ours in (("mapping", "mapping"), ("query", "query")):
        expected = open_dataset(tmp_path / "k/slice2" / theirs)
        found = open_dataset(tmp_path / "work/slice2/datasets" / ours)
        assert found.data.records_camera == expected.data.records_camera
        truth = read_camera_poses(expected).cam_from_world
        assert max(far(read_camera_poses(found).cam_from_world, truth)) < 1e-9


SIDES = {"left": 0.12, "rear": 0.0, "right": -0.12}
FIRST = 1418133732744920


def write_robotcar(root: Path) -> Miniature:
    """A location: the reference by day, queries by night, one of them for training."""
    mini = Miniature(root / "robotcar")
    cameras, from_car = {}, {}
    for side, turn in SIDES.items():
        fx, x, y = 400.0, 508.222, 498.187
        cameras[side] = pinhole((1024, 1024), fx, (x + 0.5, y + 0.5))
        lines = [f"fx {fx}", f"fy {fx}", f"cx {x}", f"cy {y}"]
        write_lines(mini.root / f"intrinsics/{side}_intrinsics.txt", lines)
        rotation = pycolmap.Rotation3d(np.array([0.0, turn, 0.0]))
        from_car[side] = pycolmap.Rigid3d(rotation, np.array([turn, 0.02, 0.0]))
        lines = [
            ",".join(map(str, row)) for row in square(from_car[side].inverse()).tolist()
        ]
        write_lines(mini.root / f"extrinsics/{side}_extrinsics.txt", lines)
    times = {("overcast-reference", n): FIRST + int(10 * n) for n in MAPPING[::2]}
    times |= {("night", n): FIRST + 1000 + int(10 * n) for n in (*QUERIES, 3.5)}
    model = pycolmap.Reconstruction()
    for camera_id, side in enumerate(SIDES, 1):
        camera = cameras[side]
        camera.camera_id = camera_id
        model.add_camera_with_trivial_rig(camera)
    queries, training = [], []
    for (condition, number), timestamp in times.items():
        for side in SIDES:
            name, pose = f"{condition}/{side}/{timestamp}", from_car[side] * view(
                number
            )
            mini.take(f"{name}.jpg", f"images/{name}.jpg", cameras[side], pose)
            if condition == "night":
                queries.append(f"{name}.jpg")
                continue
            image_id = model.num_images() + 1
            image = pycolmap.Image(
                name=f"{name}.png",
                camera_id=cameras[side].camera_id,
                image_id=image_id,
            )
            model.add_image_with_trivial_frame(image, pose)
        if number == 3.5:
            matrix = square((from_car["rear"] * view(number)).inverse())
            training.append(words(f"{condition}/rear/{timestamp}.jpg", matrix))
    places = mini.root / "3D-models/individual"
    folder = places / "colmap_reconstructions/001_aligned"
    folder.mkdir(parents=True)
    model.write_text(str(folder))
    for name in ("rigs.txt", "frames.txt"):  # COLMAP 3 had none
        (folder / name).unlink()
    write_lines(places / "queries_per_location/queries_location_001.txt", queries)
    write_lines(mini.root / "robotcar_v2_train.txt", training)
    mini.write_features(root / "features")
    return mini


@pytest.fixture(scope="module")
def robotcar(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_robotcar(tmp_path_factory.mktemp("robotcar"))


def test_robotcar(robotcar: Miniature, tmp_path: Path) -> None:
    """Version 2; rear images decide, all three cameras are localized as a rig."""
    assert robotcar_seasons.main(command(robotcar, tmp_path / "work")) == 0
    poses = read_pose_file(tmp_path / "work/submission.txt")
    times = {FIRST + 1000 + int(10 * number) for number in QUERIES}
    assert set(poses) == {f"{side}/{time}.jpg" for side in SIDES for time in times}
    assert max(far({f"night/{n}": p for n, p in poses.items()}, robotcar.truth)) < 1e-3
    mapping = open_dataset(tmp_path / "work/001_aligned/datasets/mapping")
    assert len(mapping.image_names) == 3 * (len(MAPPING[::2]) + 1)
    assert max(far(read_camera_poses(mapping).cam_from_world, robotcar.truth)) < 1e-6
    localized = tmp_path / "work/001_aligned/localized/query/report.json"
    assert json.loads(localized.read_text())["in_rigs"] == 6


def test_robotcar_as_kapture_imports_it(robotcar: Miniature, tmp_path: Path) -> None:
    import_robotcar_seasons(
        str(robotcar.root), str(tmp_path / "k"), True, skip_reconstruction=True
    )
    query = open_dataset(tmp_path / "k/01/query").data
    names = {name for _, _, name in kapture.flatten(query.records_camera)}
    assert names == {
        f"night/{side}/{FIRST + 1000 + int(10 * n)}.jpg"
        for side in SIDES
        for n in QUERIES
    }


Damage = Callable[[Path], object]
LACKS = [
    (
        cambridge_landmarks,
        "cambridge",
        lambda d: (d / "reconstruction.nvm").unlink(),
        "reconstruction.nvm: found no such file or folder, expected VisualSFM's model",
    ),
    (
        cambridge_landmarks,
        "cambridge",
        lambda d: (d / "reconstruction.nvm").write_text("NVM_V3\n\n9\nx\n"),
        "found 1 of 9 cameras, expected all; the file is truncated",
    ),
    (
        cambridge_landmarks,
        "cambridge",
        lambda d: (d / "dataset_test.txt").write_text("a\nb\n\nseq1/x.png 1 2\n"),
        "dataset_test.txt, line 4: found 'seq1/x.png 1 2', expected such as 'seq1/fr",
    ),
    (
        cambridge_landmarks,
        "cambridge",
        lambda d: shutil.rmtree(d / "seq2"),
        "found none of 2 listed images, such as",
    ),
    (
        extended_cmu_seasons,
        "cmu",
        lambda d: (d.parent / "intrinsics.txt").unlink(),
        "intrinsics.txt: found no such file or folder, expected the two cameras",
    ),
    (
        extended_cmu_seasons,
        "cmu",
        lambda d: (d / "test-images-slice2.txt").unlink(),
        "test-images-slice2.txt: found no such file or folder, expected a list",
    ),
    (
        extended_cmu_seasons,
        "cmu",
        lambda d: (d.parent / "intrinsics.txt").write_text("c0 OPENCV 1024\n"),
        "intrinsics.txt: cannot be read",
    ),
    (
        extended_cmu_seasons,
        "cmu",
        lambda d: (d / "test-images-slice2.txt").write_text("img_1_c0_7us.jpg 1 2\n"),
        "cannot be read",
    ),
    (
        robotcar_seasons,
        "robotcar",
        lambda d: shutil.rmtree(d / "extrinsics"),
        "extrinsics: found no such file or folder, expected calibration",
    ),
    (
        robotcar_seasons,
        "robotcar",
        lambda d: (d / "intrinsics/left_intrinsics.txt").write_text("400\n"),
        "intrinsics: cannot be read",
    ),
    (
        robotcar_seasons,
        "robotcar",
        lambda d: shutil.rmtree(d / "3D-models/individual/queries_per_location"),
        "queries_location_001.txt: found no such file or folder, expected the queries",
    ),
    (
        robotcar_seasons,
        "robotcar",
        lambda d: shutil.rmtree(d / "3D-models/individual/colmap_reconstructions"),
        "found no points3D.*, expected RobotCar Seasons: images, intrinsics, extrin",
    ),
]


@pytest.mark.parametrize("recipe, name, damage, text", LACKS)
def test_what_they_lack(
    recipe: object,
    name: str,
    damage: Damage,
    text: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mini: Miniature = request.getfixturevalue(name)
    shutil.copytree(mini.root.parent, tmp_path / "data")
    damage(tmp_path / "data" / mini.root.name)
    main: Recipe = getattr(recipe, "main")
    data = tmp_path / "data"
    line = typed(data / mini.root.name, data / "features", tmp_path / "work")
    assert main(line) == 2
    assert text in one_error_line(capsys)


@pytest.mark.parametrize(
    ("recipe", "fixture", "below"),
    [
        (
            robotcar_seasons,
            "robotcar",
            "3D-models/individual/colmap_reconstructions/001_aligned",
        ),
        (extended_cmu_seasons, "cmu", "."),
        (cambridge_landmarks, "cambridge", "."),
    ],
)
def test_a_scene_is_found_from_within(
    recipe: ModuleType,
    fixture: str,
    below: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As its own dataset, by a path that does not name it."""
    folder = request.getfixturevalue(fixture).root / below
    monkeypatch.chdir(folder)
    assert recipe.BENCHMARK.find(Path(".")) == {folder.name: folder}


def test_a_location_alone(robotcar: Miniature) -> None:
    whole = robotcar_seasons.BENCHMARK.find(robotcar.root)
    (model,) = whole.values()
    assert robotcar_seasons.BENCHMARK.find(model) == whole


def test_missing_images_are_left_out(
    cmu: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not everyone downloads every season."""
    shutil.copytree(cmu.root.parent, tmp_path / "data")
    mini = Miniature(tmp_path / "data" / "slice2")
    (mini.root / "query" / cmu_name(0.5, "c1")).unlink()
    assert extended_cmu_seasons.main(command(mini, tmp_path / "work")) == 0
    assert "1 of 4 listed images of" in capsys.readouterr().out
    assert len(read_pose_file(tmp_path / "work/submission.txt")) == 3
