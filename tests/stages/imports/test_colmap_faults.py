"""Sources of COLMAP that are odd or wrong in part: what is kept, and what is said."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.cli.imports import main
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.gnss import GnssPosition, read_gnss
from r2d2_kapture.stages.imports import run
from tests.commands import one_error_line
from tests.scenes.reconstruction import Made, synthesize

QUIET = RunOptions(progress=False)
CAMERA, IMU = pycolmap.SensorType.CAMERA, pycolmap.SensorType.IMU


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return synthesize(tmp_path)


def test_the_link_to_images_survives_force_though_given_itself(made: Made) -> None:
    output = made.root / "out"
    run(model=made.sparse, images=made.images, output=output, options=QUIET)
    link = output / "sensors" / "records_data"
    again = RunOptions(force=True, progress=False)
    run(model=made.sparse, images=link, output=output, options=again)
    assert os.readlink(link) == str(made.images.resolve())
    assert all((link / i.name).is_file() for i in made.model.images.values())


def with_imu(path: Path, pose: pycolmap.Rigid3d) -> None:
    """A rig whose reference is an IMU, as COLMAP 4 may have it."""
    with closing(pycolmap.Database.open(str(path))) as database:
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(pycolmap.sensor_t(IMU, 7))
        frame = pycolmap.Frame(rig_id=1)
        for number in (1, 2):
            size = {"width": 64, "height": 48, "params": [50.0, 32, 24]}
            camera = pycolmap.Camera(model="SIMPLE_PINHOLE", **size)
            sensor = pycolmap.sensor_t(CAMERA, database.write_camera(camera))
            rig.add_sensor(sensor, pose if number == 1 else pycolmap.Rigid3d())
            image = pycolmap.Image(name=f"{number}.jpg", camera_id=sensor.id)
            data = pycolmap.data_t(sensor, database.write_image(image))
            frame.add_data_id(data)
        database.write_rig(rig, use_rig_id=True)
        database.write_frame(frame)


def test_rigs_that_are_based_on_an_imu_keep_their_cameras(tmp_path: Path) -> None:
    pose = pycolmap.Rigid3d(
        pycolmap.Rotation3d(np.array([0.0, 0.6, 0, 0.8])), np.array([1.0, 2, 3])
    )
    with_imu(tmp_path / "a.db", pose)
    run(database=tmp_path / "a.db", output=tmp_path / "out", options=QUIET)
    (devices,) = open_dataset(tmp_path / "out").data.rigs.values()
    first, second = (devices[f"camera_{n:05d}"] for n in (1, 2))
    assert [*first.r_raw, *first.t_raw] == [0.8, 0, 0.6, 0, 1, 2, 3]
    assert [*second.r_raw, *second.t_raw] == [1, 0, 0, 0, 0, 0, 0]


def test_priors_that_do_not_go_with_the_others_are_left_out_and_named(
    made: Made,
) -> None:
    names = [made.model.image(number).name for number in (1, 2, 3)]
    systems = pycolmap.PosePriorCoordinateSystem
    places = ((45.0, systems.WGS84), (200.0, systems.WGS84), (9.0, systems.CARTESIAN))
    with closing(pycolmap.Database.open(str(made.database))) as database:
        for name, (latitude, system) in zip(names, places, strict=True):
            prior = pycolmap.PosePrior(
                corr_data_id=database.read_image_with_name(name).data_id,
                position=np.array([latitude, 7, 400]),
                position_covariance=-np.eye(3),
                coordinate_system=system,
            )
            database.write_pose_prior(prior)
    output = made.root / "out"
    report = run(database=made.database, output=output, options=QUIET)
    expected = GnssPosition(latitude=45, longitude=7, altitude=400, accuracy=None)
    assert read_gnss(open_dataset(output)) == {names[0]: expected}
    wrong, local = [text for text in report.warnings if "pose priors" in text]
    assert f"'{names[1]}'" in wrong and "of 1 image are" in wrong
    assert f"local frame, beside those of others on Earth: '{names[2]}'" in local


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_text_models_that_are_broken_off_are_refused(
    part: float, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    text = made.root / "text"
    text.mkdir()
    made.model.write_text(str(text))
    points = text / "points3D.txt"
    lines = points.read_text().splitlines(keepends=True)
    whole = "".join(lines[: int(len(lines) * part)])
    points.write_text(whole)  # at the end of a line, where nothing else tells
    assert main(["--model", str(text), "--output", str(made.root / "out")]) == 2
    assert "text: found" in one_error_line(capsys)
    assert not (made.root / "out").exists()


@pytest.mark.parametrize("name", ["./a.jpg", "a//b.jpg", "folder/"])
def test_names_that_are_other_paths_are_refused(
    name: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(made.database, "UPDATE images SET name = ? WHERE image_id = 1", name)
    arguments = ["--database", str(made.database), "--output", str(made.root / "out")]
    assert main(arguments) == 2
    assert f"name '{name}' is another than its path" in one_error_line(capsys)


def test_force_leaves_one_type_of_features_whatever_was_there(made: Made) -> None:
    output, again = made.root / "out", RunOptions(force=True, progress=False)
    run(model=made.sparse, output=output, options=QUIET)
    run(database=made.database, output=output, options=again)
    alone = made.root / "alone"
    run(database=made.database, output=alone, options=QUIET)
    there, expected = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
        for root in (output, alone)
    )
    assert there == expected


def test_a_finished_import_is_known_by_another_way_to_its_files(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = made.root / "out"
    run(database=made.database, model=made.sparse, output=output, options=QUIET)
    monkeypatch.chdir(made.root)
    database, model = (Path(p.name) for p in (made.database, made.sparse))
    report = run(database=database, model=model, output=output, options=QUIET)
    assert (report.done, report.skipped) == (0, 12)


def test_a_model_of_moved_keypoints_is_refused_with_its_database(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """As COLMAP's image_undistorter makes it: as many keypoints, in other places."""
    model = pycolmap.Reconstruction(str(made.sparse))
    image = model.image(3)
    for point in image.points2D:
        point.xy = point.xy + [0, 5]
    model.write(str(made.sparse))
    arguments = ["--database", str(made.database), "--model", str(made.sparse)]
    assert main([*arguments, "--output", str(made.root / "out")]) == 2
    error = one_error_line(capsys)
    assert f"sparse: found keypoint 0 of '{image.name}'" in error
    assert not (made.root / "out").exists()


def execute(path: Path, query: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(query, values)
        connection.commit()


@pytest.mark.filterwarnings("error")
def test_descriptors_of_a_type_that_is_not_known_keep_their_bytes(made: Made) -> None:
    with closing(sqlite3.connect(made.database)) as connection:
        query = "SELECT data FROM descriptors WHERE image_id = 1"
        ((stored,),) = connection.execute(query)
    execute(made.database, "UPDATE descriptors SET type = 99")
    run(database=made.database, output=made.root / "out", options=QUIET)
    folder = made.root / "out/reconstruction/descriptors/colmap"
    path = folder / f"{made.model.image(1).name}.desc"
    assert path.read_bytes() == stored


@pytest.mark.parametrize(
    ("query", "values", "words"),
    [
        (
            "UPDATE descriptors SET type = 1, cols = 126, data = zeroblob(126 * rows)",
            (),
            "descriptors of type aliked_n16rot of 126 bytes, expected float32",
        ),
        (
            "UPDATE rig_sensors SET sensor_from_rig = zeroblob(?)",
            (7 * 8,),
            "that is no quaternion and translation",
        ),
    ],
)
def test_rows_of_no_meaning_are_one_line(
    query: str,
    values: tuple[object, ...],
    words: str,
    made: Made,
    capsys: pytest.CaptureFixture[str],
) -> None:
    execute(made.database, query, *values)
    arguments = ["--database", str(made.database), "--output", str(made.root / "out")]
    assert main(arguments) == 2
    assert words in one_error_line(capsys)


def test_two_images_of_one_name_are_refused(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    model = pycolmap.Reconstruction(str(made.sparse))
    model.image(2).name = model.image(1).name
    model.write(str(made.sparse))
    arguments = ["--model", str(made.sparse), "--output", str(made.root / "out")]
    assert main(arguments) == 2
    words = f"sparse: found two images of the name '{model.image(1).name}'"
    assert words in one_error_line(capsys)


def lose_pose(model: pycolmap.Reconstruction) -> str:
    image = model.image(1)
    nowhere = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([np.nan, 0, 0]))
    model.frame(image.frame_id).rig_from_world = nowhere
    return "sparse: pose of '"


def lose_point(model: pycolmap.Reconstruction) -> str:
    number = min(model.points3D)
    model.point3D(number).xyz = np.array([np.inf, 0, 0])
    return f"sparse: point {number}: found NaN or infinity"


@pytest.mark.parametrize("lose", [lose_pose, lose_point])
def test_poses_and_points_that_are_no_numbers_are_refused(
    lose: Callable[[pycolmap.Reconstruction], str],
    made: Made,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = pycolmap.Reconstruction(str(made.sparse))
    words = lose(model)
    model.write(str(made.sparse))
    arguments = ["--model", str(made.sparse), "--output", str(made.root / "out")]
    assert main(arguments) == 2
    assert words in one_error_line(capsys)
    assert not (made.root / "out").exists()
