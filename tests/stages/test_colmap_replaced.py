"""Pictures replaced under their names, and the database that follows them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.colmap import database as colmap_database
from tests.scenes.images import write_noise
from tests.stages.colmap_runs import FORCED, QUIET, content, keypoints_of, run

EXTRACT = ExtractConfig(
    extractor=R2D2Config(min_size=32, top_k=20, reliability_thr=0, repeatability_thr=0),
    gpu=-1,
    precision="fp32",
)
CONFIG = ColmapConfig(extract=EXTRACT)
SINGLE = ColmapConfig(extract=EXTRACT, folder=FolderConfig(camera_mode="single"))
SIZES = {"a.png": (64, 48), "b.png": (64, 48), "c.png": (64, 48)}
Resize = tuple[int, int]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, (name, size) in enumerate(SIZES.items()):
        write_noise(tmp_path / "photos" / name, seed, size)
    return tmp_path / "photos"


@pytest.fixture
def database(photos: Path) -> Path:
    return photos.parent / "a b.db"


def sizes_of(path: Path) -> dict[str, tuple[int, int]]:
    """Of the camera of each image; every camera, rig and frame must fit."""
    check_database(path)
    with closing(pycolmap.Database.open(str(path))) as database:
        frames = {frame.frame_id: frame for frame in database.read_all_frames()}
        images = database.read_all_images()
        assert len(frames) == len(images)
        used = {image.camera_id for image in images}
        assert used == {camera.camera_id for camera in database.read_all_cameras()}
        assert database.num_rigs() == len(used)
        found = {}
        for image in images:
            assert list(frames[image.frame_id].data_ids) == [image.data_id]
            camera = database.read_camera(image.camera_id)
            found[image.name] = (camera.width, camera.height)
    return found


def fresh(photos: Path, checkpoint: Checkpoint, config: ColmapConfig = CONFIG) -> Path:
    path = photos.parent / "fresh.db"
    run(photos, checkpoint, config, database=path)
    return path


@pytest.mark.parametrize("size", [(64, 48), (48, 64)])
@pytest.mark.parametrize("options", [QUIET, FORCED])
def test_a_replaced_picture_and_its_camera_are_replaced_in_the_database(
    photos: Path, database: Path, checkpoint: Checkpoint, size: Resize, options: object
) -> None:
    run(photos, checkpoint, CONFIG)
    write_noise(photos / "b.png", 9, size)
    report = run(photos, checkpoint, CONFIG, options=options)
    assert report.done > 0 and not report.failed
    if options is QUIET:
        assert "extracted again: 1 ('b.png')" in report.warnings[0]
    assert sizes_of(database) == {**SIZES, "b.png": size}
    assert content(database) == content(fresh(photos, checkpoint))
    assert run(photos, checkpoint, CONFIG).done == 0


def test_force_redoes_finished_work(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    first = run(photos, checkpoint, CONFIG)
    before = content(database)
    report = run(photos, checkpoint, CONFIG, options=FORCED)
    assert (report.done, report.skipped) == (first.done, 0)
    assert content(database) == before


def test_a_picture_leaves_a_camera_that_others_keep(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint, SINGLE)
    write_noise(photos / "b.png", 9, (48, 64))
    run(photos, checkpoint, SINGLE)
    assert sizes_of(database) == {**SIZES, "b.png": (48, 64)}
    write_noise(photos / "b.png", 1, (64, 48))
    run(photos, checkpoint, SINGLE)
    assert sizes_of(database) == SIZES
    expected = keypoints_of(fresh(photos, checkpoint, SINGLE))
    found = keypoints_of(database)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(found[name], rows)


def test_other_settings_with_another_size(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint, SINGLE)
    write_noise(photos / "b.png", 9, (48, 64))
    run(photos, checkpoint, CONFIG, options=FORCED)
    assert sizes_of(database)["b.png"] == (48, 64)


def test_databases_of_older_versions_follow_by_force(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint, CONFIG)
    state = photos.parent / "a b_r2d2" / "database.json"
    noted = json.loads(state.read_text())
    del noted["added"]
    state.write_text(json.dumps(noted))
    write_noise(photos / "b.png", 9, (48, 64))
    with pytest.raises(DatasetError, match=r"'b\.png'.* its camera in the database"):
        run(photos, checkpoint, CONFIG)
    run(photos, checkpoint, CONFIG, options=FORCED)
    assert sizes_of(database)["b.png"] == (48, 64)


def test_cameras_that_others_changed_are_kept(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint, CONFIG)
    with closing(pycolmap.Database.open(str(database))) as opened:
        camera = opened.read_image_with_name("a.png").camera_id
        refined = opened.read_camera(camera)
        refined.params = refined.params * 1.01
        opened.update_camera(refined)
    write_noise(photos / "b.png", 9, (64, 48))
    run(photos, checkpoint, CONFIG, options=FORCED)
    with closing(pycolmap.Database.open(str(database))) as opened:
        np.testing.assert_array_equal(opened.read_camera(camera).params, refined.params)


def test_a_picture_that_cannot_be_read_any_more_leaves_no_features(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint, CONFIG)
    path = photos / "b.png"
    write_noise(path, 9, (64, 48))
    path.write_bytes(path.read_bytes()[:-2000])
    report = run(photos, checkpoint, CONFIG)
    assert [failure.name for failure in report.failed] == ["b.png"]
    assert len(keypoints_of(database)["b.png"]) == 0
    assert len(keypoints_of(database)["a.png"]) == 20
    with closing(pycolmap.Database.open(str(database))) as opened:
        assert opened.num_matched_image_pairs() == 1


def test_another_folder_of_the_same_names_is_refused(
    photos: Path, database: Path, checkpoint: Checkpoint
) -> None:
    run(photos, checkpoint, CONFIG)
    before = content(database)
    other = photos.parent / "other"
    for seed, name in enumerate(SIZES, start=20):
        write_noise(other / name, seed, (64, 48))
    with pytest.raises(DatasetError, match=r"two images of one name 'a\.png'"):
        run(other, checkpoint, CONFIG)
    assert content(database) == before
    # a folder that was moved is no other one
    shutil.rmtree(other)
    photos.rename(other)
    assert run(other, checkpoint, CONFIG).done == 0


@pytest.mark.parametrize("place", ["follow_cameras", "remove_features"])
def test_a_run_stopped_while_the_database_is_made_is_resumed(
    photos: Path,
    database: Path,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    run(photos, checkpoint, CONFIG)
    before = content(database)
    write_noise(photos / "b.png", 9, (48, 64))
    original: Callable[..., None] = getattr(colmap_database, place)

    def stop(*arguments: object) -> None:
        original(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(colmap_database, place, stop)
        with pytest.raises(KeyboardInterrupt):
            run(photos, checkpoint, CONFIG)
    assert content(database) == before
    run(photos, checkpoint, CONFIG)
    assert content(database) == content(fresh(photos, checkpoint))
