"""Export to COLMAP 4: a database and a model that say the same as the dataset."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.cli.export import main as export_main
from r2d2_kapture.config.origins import OriginConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.io.colmap.pose_priors import read_pose_priors
from r2d2_kapture.io.kapture.gnss import GnssPosition, add_gnss
from r2d2_kapture.stages import export
from r2d2_kapture.stages import report as page
from tests.commands import one_error_line
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_rows
from tests.scenes.world import Scene

DIM = 16
CENTER = OriginConfig(camera_origin="center")
NO_POSE = "seq é/walker/0 b.jpg"


@pytest.fixture
def scene() -> Scene:
    scene = Scene(times=3)
    add_gnss(scene.dataset, {scene.names[0]: POSITION})
    # the walker of the first time has no pose
    del scene.dataset.trajectories[0, "walker"]
    return scene


POSITION = GnssPosition(latitude=55.7, longitude=13.2, altitude=71.5, accuracy=5.0)


@pytest.fixture
def root(tmp_path: Path, scene: Scene) -> Path:
    """A dataset with a rig, partial poses, descriptors, points and observations."""
    root = scene.write_kapture(tmp_path / "k é")
    descriptors = {name: unit_rows(len(scene.points), DIM) for name in scene.names}
    write_rows(
        root / "reconstruction/descriptors/r2d2",
        "descriptors",
        descriptors,
        fields=f"r2d2, float32, {DIM}, r2d2, L2",
    )
    points = [f"{x!r}, {y!r}, {z!r}, 7, 8, 9" for x, y, z in scene.points.tolist()]
    seen = [
        f"{row}, r2d2, " + ", ".join(f"{name}, {row}" for name in scene.names)
        for row in range(len(scene.points))
    ]
    for name, lines in (("points3d", points), ("observations", seen)):
        text = "\n".join(["# kapture format: 1.1", *lines])
        (root / f"reconstruction/{name}.txt").write_text(text + "\n", "utf-8")
    return root


def matrix_of(pose: object) -> np.ndarray:
    return np.asarray(pose.matrix())


def test_database_and_model_say_what_the_dataset_does(
    root: Path, scene: Scene, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    report = export.run(CENTER, kapture_root=root, to="colmap", output=output)
    assert report.done == len(scene.names)
    assert report.details["descriptors"] == len(scene.names) * len(scene.points)
    assert [text for text in report.warnings if "no pose" in text] == [
        f"1 images have no pose: '{NO_POSE}'; they are not in the model"
    ]
    model = pycolmap.Reconstruction(str(output / "sparse"))
    posed = {image.name: image for image in map(model.image, model.reg_image_ids())}
    assert set(posed) == set(scene.names) - {NO_POSE}
    for name, image in posed.items():
        true = scene.poses[name]
        found = image.cam_from_world() * scene.points
        np.testing.assert_allclose(
            found, true.transform_points(scene.points), atol=1e-12
        )
        xy = np.array([point.xy for point in image.points2D])
        np.testing.assert_allclose(xy, scene.keypoints(name)[:, :2] + 0.5, atol=1e-4)
        ids = [point.point3D_id for point in image.points2D]
        assert ids == list(range(1, len(scene.points) + 1))
    for row, xyz in enumerate(scene.points):
        point = model.point3D(row + 1)
        assert point.xyz.tolist() == xyz.tolist()
        assert point.color.tolist() == [7, 8, 9]
        assert point.track.length() == len(posed)
        assert point.error < 1e-3
    (rig,) = [rig for rig in model.rigs.values() if rig.num_sensors() == 2]
    assert model.num_frames() == 3 + 2
    check_database(output / "database.db")
    with closing(pycolmap.Database.open(str(output / "database.db"))) as database:
        for image in database.read_all_images():
            stored = database.read_descriptors(image.image_id)
            assert stored.type == pycolmap.FeatureExtractorType.UNDEFINED
            rows = np.ascontiguousarray(stored.data).view(np.float32)
            np.testing.assert_array_equal(rows, unit_rows(len(scene.points), DIM))
            if image.name in posed:
                assert image.image_id == posed[image.name].image_id
                assert image.camera_id == posed[image.name].camera_id
        assert {r.rig_id for r in database.read_all_rigs()} == set(model.rigs)
        stored_rig = database.read_rig(rig.rig_id)
        assert stored_rig.ref_sensor_id == rig.ref_sensor_id
        pairs = len(list(itertools.combinations(scene.names, 2)))
        assert database.num_matched_image_pairs() == pairs
        assert database.num_verified_image_pairs() == 0
        assert read_pose_priors(database) == {scene.names[0]: POSITION}


def test_a_dataset_without_keypoints_becomes_a_model_of_poses(
    root: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "reconstruction")
    report = export.run(CENTER, kapture_root=root, to="colmap", output=tmp_path / "out")
    assert report.done == len(scene.names)
    assert "there are no keypoints" in report.warnings[-1]
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse"))
    assert (model.num_reg_images(), model.num_points3D()) == (8, 0)
    command = ["--kapture-root", str(root), "--output", str(tmp_path / "other")]
    assert export_main([*command, "--to", "hloc"]) == 2
    line = one_error_line(capsys)
    assert "found no keypoints, expected local features in the dataset" in line
    assert "--pipeline WORK" in line and "--features" not in line


def test_sift_of_bytes_is_of_colmaps_type(
    root: Path, scene: Scene, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (len(scene.points), 128))
    sift = {name: rows.astype(np.uint8) for name in scene.names}
    write_rows(
        root / "reconstruction/descriptors/sift",
        "descriptors",
        sift,
        fields="sift, uint8, 128, r2d2, L2",
    )
    export.run(
        kapture_root=root,
        to="colmap",
        output=tmp_path / "out",
        descriptors_type="sift",
    )
    with closing(pycolmap.Database.open(str(tmp_path / "out/database.db"))) as database:
        stored = database.read_descriptors(1)
        assert stored.type == pycolmap.FeatureExtractorType.SIFT
        np.testing.assert_array_equal(stored.data, rows)


def test_verified_matches_become_geometries(work: Path, tmp_path: Path) -> None:
    """A dataset with the folder that verification writes, and the pipeline's own."""
    verified, mapping = work / "verified", work.parent / "mapping"
    roots = {"kapture_root": mapping, "verified": verified}
    features = work.parent / "features/reconstruction"
    (mapping / "reconstruction").symlink_to(features)
    try:
        report = export.run(CENTER, **roots, to="colmap", output=tmp_path / "one")
    finally:
        (mapping / "reconstruction").unlink()
    assert report.details["pairs"] == 36
    assert not (tmp_path / "one/sparse/missing").exists()
    rows = [
        geometries(path)
        for path in (work / "database.db", tmp_path / "one/database.db")
    ]
    assert len(rows[0]) == 36
    assert rows[0] == rows[1]


def geometries(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT pair_id, rows, cols, data, config, F, E, H, qvec, tvec "
            "FROM two_view_geometries ORDER BY pair_id"
        ).fetchall()


def test_a_dataset_of_a_map_is_shown_by_the_export_that_the_error_names(
    work: Path, tmp_path: Path
) -> None:
    dataset = Path(shutil.copytree(work / "map/kapture", tmp_path / "data é"))
    with pytest.raises(
        DatasetError, match="export --kapture-root .*data é --to colmap"
    ):
        page.run(map=dataset)
    export.run(kapture_root=dataset, to="colmap", output=tmp_path / "colmap")
    found = pycolmap.Reconstruction(str(tmp_path / "colmap/sparse"))
    before = pycolmap.Reconstruction(str(work / "map/sparse"))
    assert found.num_points3D() == before.num_points3D()
    assert page.run(map=tmp_path / "colmap").done == 1


def test_colmap_maps_what_a_pipeline_made_as_it_is(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    report = export.run(pipeline=work, to="colmap", output=output)
    assert (report.done, report.failed, report.warnings) == (9, (), ())
    assert report.details["verified_pairs"] == 36
    assert geometries(output / "database.db") == geometries(work / "database.db")
    given = pycolmap.Reconstruction(str(work / "map/sparse"))
    model = pycolmap.Reconstruction(str(output / "sparse"))
    assert model.num_points3D() == given.num_points3D() > 100
    with closing(pycolmap.Database.open(str(output / "database.db"))) as database:
        for image in database.read_all_images():
            assert image.name == model.image(image.image_id).name
            xy = [point.xy for point in model.image(image.image_id).points2D]
            stored = database.read_keypoints(image.image_id)
            np.testing.assert_allclose(stored[:, :2], xy, atol=1e-6)
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=0)
    pycolmap.logging.minloglevel = 2
    (tmp_path / "maps").mkdir()
    maps = pycolmap.incremental_mapping(
        str(output / "database.db"),
        str(work.parent / "mapping/sensors/records_data"),
        str(tmp_path / "maps"),
        options=options,
    )
    assert maps[0].num_reg_images() == 9
    assert maps[0].num_points3D() > 100
    assert maps[0].compute_mean_reprojection_error() < 0.5


def test_features_that_were_made_anew_since_are_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = work.parent / "features/reconstruction/keypoints/points/seq é/left"
    file = folder / "0 b.jpg.kpt"
    content = file.read_bytes()
    file.write_bytes(content[12:] + content[:12])
    command = ["--pipeline", str(work), "--to", "colmap"]
    try:
        assert export_main([*command, "--output", str(tmp_path / "out")]) == 2
    finally:
        file.write_bytes(content)
    assert "are not those that were refined" in one_error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_other_keypoints_beside_those_of_a_pipeline_are_passed_over(
    work: Path, tmp_path: Path
) -> None:
    others = write_rows(
        work.parent / "features/reconstruction/keypoints/others",
        "keypoints",
        {"a.jpg": np.zeros((1, 2), np.float32)},
        fields="others, float32, 2",
    )
    try:
        report = export.run(pipeline=work, to="colmap", output=tmp_path / "out")
    finally:
        shutil.rmtree(others)
    assert report.details["keypoints_type"] == "points_refined"


def test_the_database_of_a_pipeline_alone_is_its_copy(
    work: Path, tmp_path: Path
) -> None:
    report = export.run(pipeline=work, to="colmap-db", output=tmp_path / "a.db")
    assert report.outputs == (tmp_path / "a.db",)
    assert geometries(tmp_path / "a.db") == geometries(work / "database.db")
    again = export.run(pipeline=work, to="colmap-db", output=tmp_path / "a.db")
    assert (again.done, again.skipped) == (0, 9)


def test_changed_files_of_an_export_are_not_replaced_unless_forced(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--pipeline", str(work), "--to", "colmap"]
    command += ["--output", str(tmp_path / "out"), "--quiet"]
    database = tmp_path / "out/database.db"
    assert export_main(command) == 0
    with closing(pycolmap.Database.open(str(database))) as opened:
        opened.num_images()  # turns write-ahead logging on, which changes nothing
    assert export_main(command) == 0
    assert "already done" in capsys.readouterr().out
    with closing(pycolmap.Database.open(str(database))) as opened:
        opened.clear_two_view_geometries()
    assert export_main(command) == 2
    error = one_error_line(capsys)
    assert f"{database}: found a file that was changed since its export" in error
    assert export_main([*command, "--force"]) == 0
    assert geometries(database) == geometries(work / "database.db")
    points = tmp_path / "out/sparse/points3D.bin"
    content = points.read_bytes()
    points.unlink()
    assert export_main(command) == 0
    assert points.read_bytes() == content


def test_another_format_replaces_what_the_earlier_one_made_and_nothing_else(
    root: Path, tmp_path: Path
) -> None:
    output, alone = tmp_path / "out", tmp_path / "alone"
    assert export.run(kapture_root=root, to="colmap", output=output).outputs
    (output / "sparse" / "notes é [1].txt").write_text("mine")
    forced = RunOptions(force=True)
    export.run(kapture_root=root, to="bundler", output=output, options=forced)
    export.run(kapture_root=root, to="bundler", output=alone)
    there, expected = (
        {path.relative_to(at) for path in at.rglob("*") if path.is_file()}
        for at in (output, alone)
    )
    assert there - expected == {Path("sparse") / "notes é [1].txt"}
    assert expected <= there


def test_text_models_are_written_on_request(
    root: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--kapture-root", str(root), "--output", str(tmp_path / "out"), "--text"]
    assert export_main([*command, "--to", "colmap"]) == 2
    error = one_error_line(capsys)
    assert "found a space in its name" in error and "omit --text" in error
    assert not (tmp_path / "out").exists()
    for path in (root / "sensors/records_camera.txt", *root.glob("**/observ*.txt")):
        path.write_text(path.read_text("utf-8").replace(" b.jpg", "_b.jpg"), "utf-8")
    for path in sorted(root.rglob("* b.jpg*"), key=lambda p: -len(p.parts)):
        path.rename(path.with_name(path.name.replace(" b.jpg", "_b.jpg")))
    for path in root.rglob("* é"):
        path.rename(path.with_name("seq"))
    for path in (root / "sensors/records_camera.txt", *root.glob("**/observ*.txt")):
        path.write_text(path.read_text("utf-8").replace("seq é", "seq"), "utf-8")
    assert export_main([*command, "--to", "colmap"]) == 0
    assert (tmp_path / "out/sparse/images.txt").is_file()
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse"))
    assert model.num_points3D() == len(scene.points)


def test_contradicting_poses_of_a_rig_are_kept_without_it(
    root: Path, tmp_path: Path
) -> None:
    path = root / "sensors/trajectories.txt"
    path.write_text(path.read_text("utf-8") + "1, left, 1, 0, 0, 0, 9, 9, 9\n", "utf-8")
    report = export.run(kapture_root=root, to="colmap", output=tmp_path / "out")
    assert any("contradict their rigs" in text for text in report.warnings)
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse"))
    moved = model.find_image_with_name("seq é/left/1 b.jpg")
    assert moved.cam_from_world().translation.tolist() == [9, 9, 9]
    with closing(pycolmap.Database.open(str(tmp_path / "out/database.db"))) as database:
        assert database.num_rigs() == 0


def test_wrong_inputs_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", str(tmp_path / "out")]
    given = ["--kapture-root", str(root)]
    for flags, expected in (
        ([], "--kapture-root, --pipeline: found neither"),
        ([*given, "--pipeline", str(root)], "found both"),
        (["--pipeline", str(root)], "found no pipeline_report.json"),
        ([*given, "--text", "--to", "h5"], "--text: found --to h5"),
        ([*given, "--verified", str(tmp_path)], "found no matches of keypoints type"),
    ):
        to = [] if "--to" in flags else ["--to", "colmap"]
        assert export_main([*flags, *out, *to]) == 2
        assert expected in one_error_line(capsys)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    for force in ([], ["--force"]):
        assert export_main([*given, *out, "--to", "colmap", *force]) == 2
        assert "'mine.txt' without a manifest.json" in one_error_line(capsys)


def test_an_observation_of_no_keypoint_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "reconstruction/observations.txt"
    text = path.read_text("utf-8").replace("seq é/left/1 b.jpg, 0\n", "x")
    path.write_text(text.replace("seq é/left/1 b.jpg, 0,", "seq é/left/1 b.jpg, 999,"))
    command = ["--kapture-root", str(root), "--to", "colmap"]
    assert export_main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "found an observation of keypoint 999" in one_error_line(capsys)
    assert not (tmp_path / "out").exists()
