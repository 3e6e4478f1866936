"""Databases that others made, and change."""

from __future__ import annotations

import os
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

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.models.checkpoints import Checkpoint
from tests.scenes.colmap import Foreign
from tests.scenes.world import HEIGHT, WIDTH, Scene
from tests.stages.colmap_runs import FORCED, KNOWN, content, keypoints_of, run


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
    assert [text.partition("; they")[0] for text in report.warnings[:2]] == [
        f"1 of 7 images of {foreign.path} are not in the folder: 'stranger.jpg'",
        f"1 of 7 images of the folder were not in {foreign.path}: 'new.png'",
    ]
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


def test_third_party_features_are_replaced_by_force_only(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    name, other = scene.names[:2]
    foreign.add_features(name)
    before = foreign.path.read_bytes()
    with pytest.raises(OutputError, match="third-party features for 1 ") as caught:
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
    with pytest.raises(OutputError, match="third-party features"):
        run(photos, checkpoint)
    assert content(foreign.path) == before


def test_images_of_another_size_are_refused(
    photos: Path, checkpoint: Checkpoint, scene: Scene, foreign: Foreign
) -> None:
    Image.new("L", (WIDTH // 2, HEIGHT // 2)).save(photos / scene.names[0])
    with pytest.raises(
        DatasetError,
        match="found 320 x 240 pixels, expected 640 x 480 of its camera in the "
        "database; resized by 0.5",
    ):
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


def test_images_without_frame_get_one_with_a_word(
    photos: Path, checkpoint: Checkpoint, foreign: Foreign
) -> None:
    name = "seq é/walker/0 b.jpg"
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        image_id = database.read_image_with_name(name).image_id
    with closing(sqlite3.connect(foreign.path)) as connection:
        connection.execute("DELETE FROM frame_data WHERE data_id = ?", (image_id,))
        connection.commit()
    report = run(photos, checkpoint)
    assert f"1 images had no frame, such as '{name}'" in report.warnings[0]
    with closing(pycolmap.Database.open(str(foreign.path))) as database:
        assert database.read_image(image_id).has_frame_id()
    assert not any("no frame" in text for text in run(photos, checkpoint).warnings)
