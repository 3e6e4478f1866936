"""From a folder of images to a COLMAP database, new or there before."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.config.colmap import ColmapConfig, FolderConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.colmap_check import check_database
from r2d2_kapture.io.poses import rigid3d_from_kapture
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint
from r2d2_kapture.stages import colmap
from r2d2_kapture.types import Report
from tests.colmap_scene import FOCAL, HEIGHT, WIDTH, Scene
from tests.extracted_scene import patch_extraction

CHECKOUT = Path(__file__).resolve().parents[2]
QUIET = RunOptions(progress=False)
FORCED = RunOptions(progress=False, force=True)
KNOWN = ColmapConfig(map=MapConfig(refine_intrinsics=False))


@pytest.fixture(scope="module")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_path)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(times=2)


@pytest.fixture
def photos(tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files for the images of the scene, whose extraction gives exact features."""
    patch_extraction(monkeypatch, scene)
    return write_photos(tmp_path / "photos é", scene)


def write_photos(folder: Path, scene: Scene) -> Path:
    """Grey images with an EXIF focal length near the true one."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model"
    exif.get_ifd(0x8769)[0xA405] = round(FOCAL * np.hypot(36, 24) / 800)
    for name in scene.names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT), 128).save(path, exif=exif)
    return folder


def run(
    photos: Path,
    checkpoint: Checkpoint,
    config: ColmapConfig = ColmapConfig(),
    **changes: Any,
) -> Report:
    settings: dict[str, Any] = {
        "database": photos.parent / "a b.db",
        "checkpoint": checkpoint,
        "options": QUIET,
    }
    return colmap.run(config, images=photos, **(settings | changes))


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def keypoints_of(path: Path) -> dict[str, Any]:
    with closing(pycolmap.Database.open(str(path))) as database:
        return {
            image.name: database.read_keypoints(image.image_id)
            for image in database.read_all_images()
        }


def test_folder_becomes_a_verified_database(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    report = run(photos, checkpoint)
    assert report.failed == ()
    assert report.details["images"] == 6
    assert report.details["pairs"] == report.details["verified_pairs"] == 15
    assert report.details["inliers"] > 0.98 * 15 * 120
    path = photos.parent / "a b.db"
    check_database(path)
    for name, stored in keypoints_of(path).items():
        np.testing.assert_allclose(
            stored, scene.keypoints(name)[:, :2] + 0.5, rtol=0, atol=1e-4
        )
    with closing(pycolmap.Database.open(str(path))) as database:
        assert database.num_images() == 6
        assert database.num_rigs() == database.num_cameras() == 3  # one a folder
        assert database.num_frames() == 6
        camera = database.read_all_cameras()[0]
        assert camera.has_prior_focal_length
        assert camera.principal_point_x == WIDTH / 2
        assert database.num_inlier_matches() == report.details["inliers"]
        assert database.num_descriptors() == 0


def test_second_run_changes_nothing(photos: Path, checkpoint: Checkpoint) -> None:
    first = run(photos, checkpoint)
    inode = (photos.parent / "a b.db").stat().st_ino
    report = run(photos, checkpoint)
    assert (report.done, report.skipped) == (0, first.done)
    assert (photos.parent / "a b.db").stat().st_ino == inode
    assert sorted(os.listdir(photos.parent)) == ["a b.db", "a b_r2d2", photos.name]


def test_sparse_model(photos: Path, checkpoint: Checkpoint, scene: Scene) -> None:
    sparse = photos.parent / "sparse"
    report = run(photos, checkpoint, sparse=sparse)
    assert report.details["registered_images"] == 6
    assert report.details["points"] == 120
    assert sorted(os.listdir(sparse)) == ["0", "r2d2_kapture.json"]
    model = pycolmap.Reconstruction(str(sparse / "0"))
    for camera in model.cameras.values():
        assert camera.focal_length == pytest.approx(FOCAL, rel=0.01)
    names = [image.name for image in model.images.values()]
    centres = [np.array(scene.poses[name].inverse().t_raw) for name in names]
    truth_from_model = pycolmap.align_reconstruction_to_locations(
        model, names, np.array(centres), 3, pycolmap.RANSACOptions(max_error=0.1)
    )
    for image, centre in zip(model.images.values(), centres):
        found = truth_from_model * image.projection_center()
        np.testing.assert_allclose(found, centre, atol=0.02)

    inode = sparse.stat().st_ino
    again = run(photos, checkpoint, sparse=sparse)
    assert again.details == report.details
    assert sparse.stat().st_ino == inode
    with pytest.raises(OutputError, match="seed: 0, not 7"):
        other = ColmapConfig(map=MapConfig(seed=7))
        run(photos, checkpoint, other, sparse=sparse)


def test_sparse_folders_of_others_are_kept(
    photos: Path, checkpoint: Checkpoint
) -> None:
    sparse = photos.parent / "sparse"
    (sparse / "0").mkdir(parents=True)
    (sparse / "0" / "cameras.bin").write_bytes(b"precious")
    for options in (QUIET, FORCED):
        with pytest.raises(OutputError, match="other content"):
            run(photos, checkpoint, sparse=sparse, options=options)
    assert (sparse / "0" / "cameras.bin").read_bytes() == b"precious"


class Foreign:
    """A database by others: a rig of two cameras, known to them, and a stranger."""

    def __init__(self, path: Path, scene: Scene) -> None:
        self.path, self.scene = path, scene
        scene.write(path, pairs=[], read_keypoints=lambda name: np.zeros((0, 2)))
        with closing(pycolmap.Database.open(str(path))) as database:
            self.stranger = database.write_image(
                pycolmap.Image(name="stranger.jpg", camera_id=1)
            )
            frame = pycolmap.Frame(rig_id=1)
            sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 1)
            frame.add_data_id(pycolmap.data_t(sensor, self.stranger))
            database.write_frame(frame)
            database.write_keypoints(self.stranger, np.ones((5, 4), np.float32))

    def add_features(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Features of an image, and matches with the stranger."""
        keypoints = np.full((7, 6), 3, np.float32)
        with closing(pycolmap.Database.open(str(self.path))) as database:
            image_id = database.read_image_with_name(name).image_id
            database.update_keypoints(image_id, keypoints)
            sift = pycolmap.FeatureDescriptors(
                pycolmap.FeatureExtractorType.SIFT, np.zeros((7, 128), np.uint8)
            )
            database.write_descriptors(image_id, sift)
            rows = np.array([[0, 1], [6, 4]], np.uint32)
            database.write_matches(image_id, self.stranger, rows)
            geometry = pycolmap.TwoViewGeometry()
            geometry.inlier_matches = rows
            database.write_two_view_geometry(image_id, self.stranger, geometry)
        return keypoints


@pytest.fixture
def foreign(photos: Path, scene: Scene) -> Foreign:
    return Foreign(photos.parent / "a b.db", scene)


def test_database_that_is_there_keeps_what_it_has(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        cameras = [str(camera) for camera in database.read_all_cameras()]
        rigs = [str(rig) for rig in database.read_all_rigs()]
        frames = sorted(str(frame) for frame in database.read_all_frames())
    Image.new("L", (64, 48)).save(photos / "new.png")
    report = run(photos, checkpoint)
    assert report.details["verified_pairs"] == 15
    check_database(foreign.path)
    stored = keypoints_of(foreign.path)
    assert len(stored) == 8
    np.testing.assert_array_equal(stored["stranger.jpg"], np.ones((5, 4)))
    for name in scene.names:
        np.testing.assert_allclose(
            stored[name], scene.keypoints(name)[:, :2] + 0.5, rtol=0, atol=1e-4
        )
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        assert [str(c) for c in database.read_all_cameras()][:3] == cameras
        assert [str(rig) for rig in database.read_all_rigs()][:2] == rigs
        now = {str(frame) for frame in database.read_all_frames()}
        assert now.issuperset(frames)
        assert (database.num_cameras(), database.num_rigs()) == (4, 3)
        new = database.read_image_with_name("new.png")
        assert database.read_camera(new.camera_id).width == 64


def test_cameras_of_the_database_decide_the_geometry(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    run(photos, checkpoint)
    names = [f"seq é/walker/{i} b.jpg" for i in (0, 1)]
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        ids = [database.read_image_with_name(name).image_id for name in names]
        geometry = database.read_two_view_geometry(*ids)
    first, second = (rigid3d_from_kapture(scene.poses[name]) for name in names)
    assert first is not None and second is not None
    expected = pycolmap.essential_matrix_from_pose(second * first.inverse())
    found = geometry.E / np.linalg.norm(geometry.E) * np.linalg.norm(expected)
    found *= np.sign((found * expected).sum())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_database_without_rigs_stays_one(
    photos: Path, checkpoint: Checkpoint, foreign: Foreign
) -> None:
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        database.clear_frames()
        database.clear_rigs()
    Image.new("L", (64, 48)).save(photos / "new.png")
    report = run(photos, checkpoint, sparse=photos.parent / "sparse", config=KNOWN)
    assert report.details["registered_images"] == 6
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        assert (database.num_rigs(), database.num_frames()) == (0, 0)


def test_features_of_others_are_replaced_by_force_only(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    name, other = scene.names[:2]
    foreign.add_features(name)
    before = foreign.path.read_bytes()
    with pytest.raises(OutputError, match="features of others for 1 ") as caught:
        run(photos, checkpoint)
    assert name in str(caught.value)
    assert foreign.path.read_bytes() == before
    assert not (photos.parent / "a b_r2d2" / "features").exists()

    run(photos, checkpoint, options=FORCED)
    check_database(foreign.path)
    np.testing.assert_allclose(
        keypoints_of(foreign.path)[name], scene.keypoints(name)[:, :2] + 0.5, atol=1e-4
    )
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        ids = [database.read_image_with_name(n).image_id for n in (name, other)]
        assert not database.exists_descriptors(ids[0])
        assert not database.exists_matches(ids[0], foreign.stranger)
        assert not database.exists_two_view_geometry(ids[0], foreign.stranger)
        assert len(database.read_two_view_geometry(*ids).inlier_matches) > 100
    assert len(keypoints_of(foreign.path)["stranger.jpg"]) == 5


def test_features_that_others_add_later_are_noticed(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    run(photos, checkpoint)
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        image_id = database.read_image_with_name(scene.names[0]).image_id
        moved = database.read_keypoints(image_id) + 1
        database.update_keypoints(image_id, moved)
    before = content(foreign.path)
    with pytest.raises(OutputError, match="features of others"):
        run(photos, checkpoint)
    assert content(foreign.path) == before


def test_images_of_another_size_are_refused(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    Image.new("L", (WIDTH // 2, HEIGHT // 2)).save(photos / scene.names[0])
    with pytest.raises(DatasetError, match="640 x 480 pixels, its file 320 x 240"):
        run(photos, checkpoint)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(b"precious" * 100), "no SQLite"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "half-written"),
    ],
)
def test_unusable_databases_are_left_alone(
    photos: Path, checkpoint: Checkpoint, foreign: Foreign, damage: Any, words: str
) -> None:
    damage(foreign.path)
    before = foreign.path.read_bytes()
    with pytest.raises(DatasetError, match=words):
        run(photos, checkpoint)
    assert foreign.path.read_bytes() == before


def test_database_in_use_is_left_alone(
    photos: Path, checkpoint: Checkpoint, foreign: Foreign
) -> None:
    code = (
        "import pycolmap, sys\nd = pycolmap.Database.open(sys.argv[1])\n"
        "d.num_images()\nprint('ready', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(foreign.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(DatasetError, match="another process"):
            run(photos, checkpoint)
        process.communicate("\n", timeout=60)
    assert run(photos, checkpoint).failed == ()


def test_pairs_of_a_list(photos: Path, checkpoint: Checkpoint, scene: Scene) -> None:
    listed = photos.parent / "pairs.txt"
    first, second, third = scene.names[:3]
    listed.write_text(
        f"{first}, {second}, 1\n{second}, {third}, 0.5\n", encoding="utf-8"
    )
    assert run(photos, checkpoint, pairs_list=listed).details["pairs"] == 2
    listed.write_text(
        f"{first}, {second}, 1\n{first}, absent.jpg, 1\n", encoding="utf-8"
    )
    with pytest.raises(DatasetError, match="'absent.jpg' is not among"):
        run(photos, checkpoint, pairs_list=listed)


def test_lists_in_the_two_formats(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    names = ["a/1.jpg", "a/2.jpg", "b c.jpg"]
    path.write_text("# COLMAP\na/1.jpg a/2.jpg\n\na/2.jpg a/1.jpg\n", encoding="utf-8")
    pairs = colmap.read_either_list(path, names)
    assert [pair.names for pair in pairs] == [("a/1.jpg", "a/2.jpg")]
    path.write_text("a/1.jpg, b c.jpg, 0.5\n", encoding="utf-8")
    pairs = colmap.read_either_list(path, names)
    assert [pair.names for pair in pairs] == [("a/1.jpg", "b c.jpg")]
    for text in ("a/1.jpg b c.jpg\n", "a/1.jpg\n", "a/1.jpg a/1.jpg\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DatasetError, match="expected two image names"):
            colmap.read_either_list(path, names)
    with pytest.raises(DatasetError, match="no such file"):
        colmap.read_either_list(tmp_path / "absent.txt", names)


def test_many_images_are_paired_by_likeness(
    photos: Path, checkpoint: Checkpoint
) -> None:
    config = ColmapConfig(
        folder=FolderConfig(exhaustive_limit=5),
        pairing=PairsConfig(top_k=2, vlad_clusters=2),
    )
    details = run(photos, checkpoint, config).details
    assert 6 <= details["pairs"] <= 12
    assert (photos.parent / "a b_r2d2" / "pairs_local.txt").is_file()


def test_images_that_cannot_be_used_are_reported(
    photos: Path, checkpoint: Checkpoint
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    Image.new("L", (WIDTH, HEIGHT)).save(photos / "one, two.png")
    report = run(photos, checkpoint)
    assert sorted(f.name for f in report.failed) == ["broken.jpg", "one, two.png"]
    assert report.details["verified_pairs"] == 15


def test_one_image_is_too_few(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    for name in scene.names[1:]:
        (photos / name).unlink()
    with pytest.raises(DatasetError, match="no pair among 1 images"):
        run(photos, checkpoint)
    assert not (photos.parent / "a b.db").exists()


def test_more_images_extend_the_database(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    last = photos / scene.names[-1]
    kept = last.read_bytes()
    last.unlink()
    assert run(photos, checkpoint).details["pairs"] == 10
    last.write_bytes(kept)
    report = run(photos, checkpoint)
    assert report.details["pairs"] == 15
    with closing(pycolmap.Database.open(str(photos.parent / "a b.db"))) as database:
        assert database.num_images() == 6
        assert database.num_verified_image_pairs() == 15


def test_other_settings_are_refused_and_named(
    photos: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint)
    before = content(photos.parent / "a b.db")
    config = ColmapConfig(verify=VerifyConfig(max_error=1.0))
    with pytest.raises(OutputError, match="verify.max_error: 4.0, not 1.0.*--force"):
        run(photos, checkpoint, config)
    assert content(photos.parent / "a b.db") == before
    assert run(photos, checkpoint, config, options=FORCED).done > 0
    assert run(photos, checkpoint, config).done == 0


def test_what_a_run_killed_at_once_left_is_no_obstacle(
    photos: Path, checkpoint: Checkpoint
) -> None:
    work = photos.parent / "a b_r2d2"
    work.mkdir()
    (work / ".manifest.1-0123abcd.json").write_text('{"half', encoding="utf-8")
    assert run(photos, checkpoint).done > 0


def test_work_folders_of_others_are_kept(photos: Path, checkpoint: Checkpoint) -> None:
    work = photos.parent / "a b_r2d2"
    work.mkdir()
    (work / "thesis.tex").write_text("precious", encoding="utf-8")
    for options in (QUIET, FORCED):
        with pytest.raises(OutputError, match="other content"):
            run(photos, checkpoint, options=options)
    assert (work / "thesis.tex").is_file()


def test_database_inside_the_images_is_refused(
    photos: Path, checkpoint: Checkpoint
) -> None:
    with pytest.raises(DatasetError, match="inside the folder of images"):
        run(photos, checkpoint, database=photos / "a.db")


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import colmap, colmap_database
from tests.colmap_scene import Scene
from tests.extracted_scene import patch_extraction

photos, weights, place = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
patch_extraction(pytest.MonkeyPatch(), Scene(times=2))
calls = 0

def die(*arguments, **settings):
    global calls
    calls += 1
    if calls == (5 if place == "replace_pair" else 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **settings)

real = getattr(colmap_database, place)
setattr(colmap_database, place, die)
colmap.run(ColmapConfig(), images=photos, database=photos.parent / "a b.db",
           checkpoint=load_checkpoint(weights), options=RunOptions(progress=False))
"""


@pytest.mark.parametrize(
    "place", [pytest.param("verify_pairs", marks=pytest.mark.slow), "replace_pair"]
)
def test_killed_run_leaves_the_database_and_is_resumed(
    photos: Path,
    checkpoint: Checkpoint,
    checkpoint_path: Path,
    foreign: Foreign,
    place: str,
) -> None:
    unbroken = photos.parent / "unbroken.db"
    shutil.copy(foreign.path, unbroken)
    run(photos, checkpoint, database=unbroken)
    before = content(foreign.path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(photos), str(checkpoint_path), place],
        cwd=CHECKOUT,
    )
    assert done.returncode == -signal.SIGKILL
    assert content(foreign.path) == before
    run(photos, checkpoint)
    assert content(foreign.path) == content(unbroken)


@pytest.mark.parametrize(
    "changes",
    [
        {"verify": VerifyConfig(geometry="known_poses")},
        {"map": MapConfig(method="triangulate")},
        {"pairing": PairsConfig(method="poses")},
    ],
)
def test_settings_that_need_poses_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        dataclasses.replace(ColmapConfig(), **changes)


def test_any_number_of_workers_gives_the_same_database(
    photos: Path, checkpoint: Checkpoint
) -> None:
    for workers in (1, 4):
        options = RunOptions(workers=workers, progress=False)
        database = photos.parent / f"{workers}.db"
        run(photos, checkpoint, database=database, options=options)
    first, second = (photos.parent / f"{workers}.db" for workers in (1, 4))
    assert first.read_bytes() == second.read_bytes()
