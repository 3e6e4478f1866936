"""Export to COLMAP 3.8 and Bundler: as those tools read it, without them."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import kapture
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.cli.export import main as export_main
from r2d2_kapture.io.kapture.gnss import GnssPosition, LocalPosition, add_gnss
from r2d2_kapture.stages import export
from tests.commands import one_error_line
from tests.scenes.world import HEIGHT, WIDTH, Scene

TABLES_3_8 = {
    "cameras": "camera_id model width height params prior_focal_length",
    "images": "image_id name camera_id prior_qw prior_qx prior_qy prior_qz prior_tx "
    "prior_ty prior_tz",
    "keypoints": "image_id rows cols data",
    "descriptors": "image_id rows cols data",
    "matches": "pair_id rows cols data",
    "two_view_geometries": "pair_id rows cols data config F E H qvec tvec",
}
"""What ``colmap database_creator`` of version 3.8 makes."""


@pytest.fixture(scope="module")
def colmap3(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("colmap3") / "out"
    report = export.run(pipeline=work, to="colmap3", output=output)
    assert report.done == 9
    assert report.details["descriptors"] == 0
    assert [text.partition(":")[0][:30] for text in report.warnings] == [
        "COLMAP 3 has no rigs",
        "descriptors of 9 images are le",
    ]
    return output


def test_tables_are_those_of_version_3_8(colmap3: Path, work: Path) -> None:
    with closing(sqlite3.connect(colmap3 / "database.db")) as connection:
        connection.execute("ATTACH ? AS four", (str(work / "database.db"),))

        def rows(query: str) -> list[tuple[object, ...]]:
            return connection.execute(query).fetchall()

        assert rows("PRAGMA user_version") == [(3800,)]
        for table, columns in TABLES_3_8.items():
            there = [row[1] for row in rows(f"PRAGMA main.table_info({table})")]
            assert there == columns.split()
        names = {row[0] for row in rows("SELECT name FROM sqlite_master")}
        assert not names & {"rigs", "frames", "pose_priors"}
        for table in ("cameras", "keypoints", "matches"):
            same = f"SELECT * FROM main.{table} EXCEPT SELECT * FROM four.{table}"
            assert rows(same) == []
            assert rows(f"SELECT COUNT(*) FROM main.{table}")[0][0] > 0
        assert rows("SELECT COUNT(*) FROM main.two_view_geometries") == [(36,)]
        assert rows("SELECT COUNT(*) FROM main.descriptors") == [(0,)]


def test_the_model_has_the_files_of_version_3(colmap3: Path, work: Path) -> None:
    folder = colmap3 / "sparse"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.bin" for name in ("cameras", "images", "points3D")
    }
    given = pycolmap.Reconstruction(str(work / "map/sparse"))
    model = pycolmap.Reconstruction(str(folder))
    assert model.num_points3D() == given.num_points3D()
    for image_id in given.reg_image_ids():
        np.testing.assert_allclose(
            model.image(image_id).cam_from_world().matrix(),
            given.image(image_id).cam_from_world().matrix(),
            atol=1e-9,
        )


@pytest.mark.skipif(shutil.which("colmap") is None, reason="there is no colmap binary")
def test_the_binary_of_version_3_maps_it(
    colmap3: Path, work: Path, tmp_path: Path
) -> None:
    version = subprocess.run(["colmap", "help"], capture_output=True, text=True).stdout
    if "COLMAP 3." not in version:
        pytest.skip(f"the binary is {version.partition(' -- ')[0]}, expected COLMAP 3")
    database = Path(shutil.copy(colmap3 / "database.db", tmp_path / "database.db"))
    images = work.parent / "mapping/sensors/records_data"
    (tmp_path / "points").mkdir()
    for arguments in (
        ["model_analyzer", "--path", colmap3 / "sparse"],
        [
            *("point_triangulator", "--database_path", database),
            *("--image_path", images, "--input_path", colmap3 / "sparse"),
            *("--output_path", tmp_path / "points", "--clear_points", "1"),
            *("--Mapper.num_threads", "1"),
        ],
    ):
        ended = subprocess.run(
            ["colmap", *map(str, arguments)], capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    made = pycolmap.Reconstruction(str(tmp_path / "points"))
    assert (made.num_reg_images(), made.num_points3D()) == (9, 120)


def test_a_camera_that_version_3_lacks_is_named(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "work"
    shutil.copytree(work, copy)
    refined = copy / "refined" / "database.db"
    with closing(sqlite3.connect(refined)) as database, database:
        division = int(pycolmap.CameraModelId.DIVISION)
        numbers = np.array([500.0, 500.0, 320.0, 240.0, 0.01]).tobytes()
        database.execute(
            "UPDATE cameras SET model = ?, params = ? WHERE camera_id = 2",
            (division, numbers),
        )
    command = ["--pipeline", str(copy), "--to", "colmap3"]
    assert export_main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "camera 2: found model DIVISION" in one_error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_bundler_projects_points_where_images_see_them(
    work: Path, tmp_path: Path
) -> None:
    export.run(pipeline=work, to="bundler", output=tmp_path / "out")
    listed = (tmp_path / "out/bundle.out.list.txt").read_text("utf-8").splitlines()
    lines = (tmp_path / "out/bundle.out").read_text("utf-8").splitlines()
    assert lines[0] == "# Bundle file v0.3"
    cameras, points = map(int, lines[1].split())
    assert (cameras, points) == (len(listed), 120) == (9, 120)
    assert listed == sorted(listed)
    numbers = iter([float(word) for line in lines[2:] for word in line.split()])

    def take(count: int) -> np.ndarray:
        return np.array([next(numbers) for _ in range(count)])

    described = [(take(3), take(9).reshape(3, 3), take(3)) for _ in range(cameras)]
    assert np.linalg.det(described[0][1]) == pytest.approx(1)
    errors = []
    for _ in range(points):
        xyz, _, (track,) = take(3), take(3), take(1)
        for _ in range(int(track)):
            camera, _, *seen = take(4)
            (focal, k1, k2), rotation, translation = described[int(camera)]
            x, y, z = rotation @ xyz + translation
            assert z < 0 and (k1, k2) == (0, 0)
            errors.append(np.hypot(*(-focal * np.array([x, y]) / z - seen)))
    assert next(numbers, None) is None
    assert 0 < np.mean(errors) < 0.5


def test_bundler_refuses_cameras_that_it_cannot_describe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = [WIDTH, HEIGHT, 500, 500, 320, 240, 0.1, 0, 0, 0]
    stretched = kapture.Camera("PINHOLE", [WIDTH, HEIGHT, 500, 400, 320, 240])
    for number, (camera, expected) in enumerate(
        (
            (kapture.Camera("OPENCV", parameters), "camera 1: found model OPENCV"),
            (stretched, "camera 1: found focal lengths 500 and 400"),
        )
    ):
        scene = Scene(times=2).taken_with(camera)
        root = scene.write_kapture(tmp_path / str(number))
        command = ["--kapture-root", str(root), "--to", "bundler", "--camera-origin"]
        assert export_main([*command, "corner"]) == 2
        assert expected in one_error_line(capsys)
        assert not (root / "bundler").exists()


def test_version_3_has_prior_positions_in_the_rows_of_images(tmp_path: Path) -> None:
    scene = Scene(times=2)
    known = GnssPosition(latitude=55.7, longitude=13.2, altitude=71.5)
    add_gnss(scene.dataset, {scene.names[0]: known})
    root = scene.write_kapture(tmp_path / "k")
    export.run(kapture_root=root, to="colmap3", output=tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out/database.db")) as connection:
        query = "SELECT prior_tx, prior_ty, prior_tz FROM images WHERE name = ?"
        (row,) = connection.execute(query, (scene.names[0],))
        assert row == (55.7, 13.2, 71.5)
        (row,) = connection.execute(query, (scene.names[1],))
        assert row == (None, None, None)


def test_version_3_is_given_no_local_positions_that_it_would_take_for_degrees(
    tmp_path: Path,
) -> None:
    scene = Scene(times=2)
    add_gnss(scene.dataset, {scene.names[0]: LocalPosition(x=5, y=6, z=7)})
    root = scene.write_kapture(tmp_path / "k")
    report = export.run(kapture_root=root, to="colmap3", output=tmp_path / "out")
    assert any("positions of 1 image in a local frame" in w for w in report.warnings)
    with closing(sqlite3.connect(tmp_path / "out/database.db")) as connection:
        rows = connection.execute("SELECT DISTINCT prior_tx FROM images").fetchall()
    assert rows == [(None,)]
