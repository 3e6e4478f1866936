"""COLMAP databases: what pycolmap reads back, verifies and triangulates."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError, FeatureFormatError, OutputError
from r2d2_kapture.io.colmap.database import DatabaseSummary, write_database
from r2d2_kapture.types import FloatArray, PairMatches
from tests.scenes.colmap import cameras_by_name, known_pose_model, triangulate, verify
from tests.scenes.world import CORNER_PP, FOCAL, Scene, pair_matches

NAME = "seq é/left/0 b.jpg"


def test_one_complete_file_counted_and_numbered_by_name(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "new" / "database.db"
    summary = scene.write(path)
    assert summary == DatabaseSummary(
        cameras=3,
        rigs=2,
        frames=8,
        images=12,
        keypoints=12 * 120,
        pairs=66,
        matches=66 * 120,
        camera_origin="center",
    )
    assert os.listdir(path.parent) == ["database.db"]
    # it opens from a folder that may only be read
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM matches").fetchone() == (66,)
    connection.close()
    with pycolmap.Database.open(str(path)) as database:
        names = [image.name for image in database.read_all_images()]
        assert names == sorted(scene.names)
        assert [camera.camera_id for camera in database.read_all_cameras()] == [1, 2, 3]
        assert database.num_keypoints() == summary.keypoints
        assert database.num_matches() == summary.matches
        assert database.num_descriptors() == 0


def test_same_input_gives_same_content(tmp_path: Path, scene: Scene) -> None:
    pairs = list(itertools.combinations(scene.names, 2))
    scene.write(tmp_path / "a.db", pairs=pairs)
    scene.write(tmp_path / "b.db", pairs=[(b, a) for a, b in reversed(pairs)])
    dumps = []
    for name in ("a.db", "b.db"):
        connection = sqlite3.connect(tmp_path / name)
        dumps.append(list(connection.iterdump()))
        connection.close()
    assert dumps[0] == dumps[1]


def test_keypoints_and_principal_point_move_half_a_pixel_once(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    scene.write(path)
    name = scene.names[0]
    camera = cameras_by_name(path, scene)["left"]
    assert camera.params.tolist() == [FOCAL, FOCAL, *CORNER_PP]
    assert camera.has_prior_focal_length
    with pycolmap.Database.open(str(path)) as database:
        image_id = database.read_image_with_name(name).image_id
        stored = database.read_keypoints(image_id)
    np.testing.assert_allclose(
        stored, scene.keypoints(name)[:, :2] + 0.5, rtol=0, atol=1e-4
    )
    rays = scene.poses[name].transform_points(scene.points)
    np.testing.assert_allclose(stored, camera.img_from_cam(rays), atol=1e-3)


def test_images_without_keypoints_and_pairs_without_matches(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    empty, full, alone = sorted(scene.names)[:3]

    def keypoints(name: str) -> FloatArray:
        return scene.keypoints(name)[: 0 if name == empty else None]

    def matches(first: str, second: str) -> PairMatches | None:
        return None if second == alone else pair_matches([])

    summary = scene.write(
        path,
        read_keypoints=keypoints,
        read_matches=matches,
        pairs=[(empty, full), (empty, alone)],
    )
    assert (summary.pairs, summary.matches) == (1, 0)
    verify(path)
    with pycolmap.Database.open(str(path)) as database:
        image_id = database.read_image_with_name(empty).image_id
        assert database.exists_keypoints(image_id)
        assert len(database.read_keypoints(image_id)) == 0


def test_matches_follow_the_order_of_names(tmp_path: Path, scene: Scene) -> None:
    first, second = sorted(scene.names)[:2]
    asked = []

    def matches(one: str, other: str) -> PairMatches:
        asked.append((one, other))
        return pair_matches([[3, 7], [4, 9]])

    pairs = [(second, first), (first, second), (second, first)]
    summary = scene.write(tmp_path / "a.db", read_matches=matches, pairs=pairs)
    assert asked == [(first, second)]
    assert summary.pairs == 1
    with pycolmap.Database.open(str(tmp_path / "a.db")) as database:
        ids = [database.read_image_with_name(n).image_id for n in (first, second)]
        assert database.read_matches(*ids).tolist() == [[3, 7], [4, 9]]


def test_geometries_are_of_the_pair_in_its_order(tmp_path: Path, scene: Scene) -> None:
    first, second, third = sorted(scene.names)[:3]

    def geometry(one: str, other: str) -> pycolmap.TwoViewGeometry | None:
        if other == third:
            return None
        made = pycolmap.TwoViewGeometry()
        made.config, made.E = 2, np.arange(9.0).reshape(3, 3)
        made.inlier_matches = np.array([[3, 7]], np.uint32)
        return made

    scene.write(
        tmp_path / "a.db",
        pairs=[(second, first), (first, third)],
        read_geometry=geometry,
    )
    with pycolmap.Database.open(str(tmp_path / "a.db")) as database:
        ids = [database.read_image_with_name(n).image_id for n in (first, second)]
        stored = database.read_two_view_geometry(*ids)
        assert database.num_verified_image_pairs() == 1
    assert stored.inlier_matches.tolist() == [[3, 7]]
    np.testing.assert_array_equal(stored.E, np.arange(9.0).reshape(3, 3))


def test_rigs_are_based_on_a_camera_that_took_images(
    tmp_path: Path, scene: Scene
) -> None:
    for timestamp in range(4):
        scene.names.remove(scene.dataset.records_camera[timestamp].pop("left"))
    scene.write(tmp_path / "a.db")
    with pycolmap.Database.open(str(tmp_path / "a.db")) as database:
        references = {rig.ref_sensor_id.id for rig in database.read_all_rigs()}
        used = {image.camera_id for image in database.read_all_images()}
    assert used <= references


@pytest.mark.parametrize("row", [[120, 0], [0, 120]])
def test_matches_of_no_keypoint_are_refused(
    tmp_path: Path, scene: Scene, row: list[int]
) -> None:
    first, second = sorted(scene.names)[:2]
    with pytest.raises(FeatureFormatError, match=f"{first}.*{second}"):
        scene.write(
            tmp_path / "a.db",
            read_matches=lambda one, other: pair_matches([[0, 0], row]),
            pairs=[(first, second)],
        )
    assert os.listdir(tmp_path) == []


def interrupted(first: str, second: str) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"read_keypoints": lambda name: np.zeros(6)}, FeatureFormatError, "keypoints"),
        ({"pairs": [(NAME, "absent.jpg")]}, DatasetError, "absent.jpg"),
        ({"pairs": [(NAME, NAME)]}, DatasetError, "itself"),
        ({"read_matches": interrupted}, KeyboardInterrupt, "^$"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, scene: Scene, changes: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        scene.write(tmp_path / "a.db", **changes)
    assert os.listdir(tmp_path) == []


def test_file_that_exists_is_kept_unless_asked(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"precious")
    (tmp_path / "a.db-wal").write_bytes(b"log of an older database")
    with pytest.raises(OutputError, match="overwrite"):
        scene.write(path)
    assert path.read_bytes() == b"precious"
    scene.write(path, overwrite=True)
    assert os.listdir(tmp_path) == ["a.db"]
    with pycolmap.Database.open(str(path)) as database:
        assert database.num_images() == 12


@pytest.mark.skipif(sys.platform != "linux", reason="limits files as on Linux")
@pytest.mark.parametrize("limit", [0, 150_000])
def test_full_disk_is_an_error_not_a_crash(tmp_path: Path, limit: int) -> None:
    code = """
import resource, sys
from pathlib import Path
from r2d2_kapture.errors import OutputError
from tests.scenes.world import Scene
scene, limit = Scene(), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    scene.write(Path(sys.argv[1]))
except OutputError as error:
    assert "TMPDIR" in str(error)
    sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.db"), str(limit)],
        cwd=Path(__file__).resolve().parents[3],
    )
    assert done.returncode == 7
    assert os.listdir(tmp_path) == []


def test_missing_folder_of_temporary_files_is_one_line(
    tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutputError, match="a.db: cannot write a temporary.*TMPDIR"):
        scene.write(tmp_path / "a.db")
    assert os.listdir(tmp_path) == []


def test_database_is_built_in_the_folder_of_temporary_files(
    tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "remote").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "local"))
    found = []

    def matches(one: str, other: str) -> None:
        found.append(len(list((tmp_path / "local").rglob("*.db"))))
        found.append(len(list((tmp_path / "remote").iterdir())))

    scene.write(tmp_path / "remote" / "a.db", read_matches=matches)
    assert (set(found[::2]), set(found[1::2])) == ({1}, {0})
    assert os.listdir(tmp_path / "local") == []
    assert os.listdir(tmp_path / "remote") == ["a.db"]


@pytest.mark.shared
def test_virtual_gallery_is_verified_and_triangulated(
    tmp_path: Path, shared: Path
) -> None:
    root = shared / "data" / "virtual_gallery"
    features = root / "local_features" / "r2d2_500"
    dataset = kcsv.kapture_from_dir(str(root / "mapping"))
    poses = {
        name: kapture.PoseTransform.compose(
            [
                dataset.rigs["training_rig", sensor_id],
                dataset.trajectories[time, "training_rig"],
            ]
        )
        for time, sensor_id, name in kapture.flatten(dataset.records_camera)
    }

    def keypoints(name: str) -> FloatArray:
        file = features / "keypoints" / f"{name}.kpt"
        return np.fromfile(file, np.float32).reshape(-1, 3)

    def matches(first: str, second: str) -> PairMatches:
        one, other = (
            np.fromfile(features / "descriptors" / f"{name}.desc", np.float32)
            for name in (first, second)
        )
        similarity = one.reshape(-1, 128) @ other.reshape(-1, 128).T
        there, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        rows = np.flatnonzero(back[there] == np.arange(len(there)))
        return pair_matches(np.column_stack([rows, there[rows]]))

    path = tmp_path / "a.db"
    summary = write_database(
        path,
        dataset,
        read_keypoints=keypoints,
        read_matches=matches,
        pairs=itertools.combinations(sorted(poses)[:4] + sorted(poses)[6:10], 2),
    )
    assert (summary.rigs, summary.frames, summary.images) == (1, 6, 12)
    assert summary.camera_origin == "center"
    verify(path)
    model = known_pose_model(path, poses.__getitem__)
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_points3D() > 100
    assert model.compute_mean_reprojection_error() < 1.5
