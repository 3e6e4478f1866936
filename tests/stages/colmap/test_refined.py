"""Databases with refined keypoints, and without."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import RefineOnceConfig
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.colmap.database import DatabaseUpdate
from r2d2_kapture.types import Report
from tests.scenes.extraction import patch_extraction
from tests.scenes.plane import FOCAL
from tests.scenes.refinable import RefinableScene
from tests.scenes.surfaces import SIDE
from tests.stages.colmap_runs import FORCED, content, keypoints_of, run

MIDDLE = SIDE / 2
CAMERA = FolderConfig(
    camera_model="PINHOLE", camera_params=f"{FOCAL},{FOCAL},{MIDDLE},{MIDDLE}"
)
ON = ColmapConfig(folder=CAMERA)
OFF = dataclasses.replace(ON, refine=RefineOnceConfig(use=False))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> RefinableScene:
    return RefinableScene(tmp_path_factory.mktemp("plane"))


@pytest.fixture
def photos(
    plane: RefinableScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    exact: Any = SimpleNamespace(features=lambda dim: plane.read_features)
    patch_extraction(monkeypatch, exact)
    (tmp_path / "photos é").symlink_to(plane.photographs)
    return tmp_path / "photos é"


def refined_keypoints(database: Path) -> dict[str, Any]:
    """Of the work folder, in COLMAP's pixel origin."""
    work = database.with_name(f"{database.stem}_r2d2")
    table = open_feature_table([work / "refined"], "keypoints")
    return {name: table.read(name)[:, :2] + 0.5 for name in table.image_names}


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        np.testing.assert_allclose(rows, expected[name], rtol=0, atol=1e-4)


def test_a_database_has_refined_keypoints_unless_they_are_left_out(
    plane: RefinableScene, photos: Path, checkpoint: Checkpoint
) -> None:
    refined, plain = (photos.parent / name for name in ("refined.db", "plain.db"))
    report = run(photos, checkpoint, ON, database=refined)
    assert not report.failed
    assert report.details["refinement"]["moved"] > 50
    found = keypoints_of(refined)
    assert_close(found, refined_keypoints(refined))
    without = run(photos, checkpoint, OFF, database=plain)
    assert "refinement" not in without.details
    assert not (photos.parent / "plain_r2d2" / "refined").exists()
    assert not (photos.parent / "plain_r2d2" / "database.db").exists()
    extracted = {name: plane.read_features(name).keypoints + 0.5 for name in found}
    assert_close(keypoints_of(plain), extracted)
    steps = [np.abs(rows - extracted[name]).max() for name, rows in found.items()]
    assert 0.3 < max(steps) < 3
    for name in ("verified_pairs", "inliers"):
        assert report.details[name] == without.details[name] > 0


def test_a_run_that_is_stopped_or_done_writes_no_other_database(
    photos: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = photos.parent / "a b.db"

    def stop(*arguments: object, **others: object) -> Report:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseUpdate, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            run(photos, checkpoint, ON)
    assert not database.exists()
    run(photos, checkpoint, ON)
    before = content(database)
    assert run(photos, checkpoint, ON).done == 0
    assert run(photos, checkpoint, ON, options=FORCED).done > 0
    assert content(database) == before


@pytest.mark.parametrize("first, then", [(ON, OFF), (OFF, ON)], ids=["off", "on"])
def test_another_choice_is_refused_in_one_line(
    photos: Path, checkpoint: Checkpoint, first: ColmapConfig, then: ColmapConfig
) -> None:
    database = photos.parent / "a b.db"
    run(photos, checkpoint, first)
    before = content(database)
    found, flag = ("refined", "on") if then is OFF else ("extracted", "off")
    words = f"found {found} keypoints; give --refine {flag} to continue.*--force"
    with pytest.raises(OutputError, match=words):
        run(photos, checkpoint, then)
    assert content(database) == before
    run(photos, checkpoint, then, options=FORCED)
    fresh = photos.parent / "fresh.db"
    run(photos, checkpoint, then, database=fresh)
    assert_close(keypoints_of(database), keypoints_of(fresh))
    assert (photos.parent / "a b_r2d2" / "refined").exists() == (then is ON)


def test_images_of_others_stay_as_they_are(
    photos: Path, checkpoint: Checkpoint
) -> None:
    database = photos.parent / "a b.db"
    with closing(pycolmap.Database.open(str(database))) as opened:
        camera = pycolmap.Camera.create_from_model_name(0, "PINHOLE", 90.0, 64, 48)
        camera_id = opened.write_camera(camera)
        stranger = pycolmap.Image(name="stranger.jpg", camera_id=camera_id)
        image_id = opened.write_image(stranger)
        opened.write_keypoints(image_id, np.ones((5, 4), np.float32))
    run(photos, checkpoint, ON)
    found = keypoints_of(database)
    np.testing.assert_array_equal(found.pop("stranger.jpg"), np.ones((5, 4)))
    assert_close(found, refined_keypoints(database))


def test_refined_keypoints_are_known_for_ours(
    photos: Path, checkpoint: Checkpoint
) -> None:
    """Where the database was changed otherwise since."""
    database = photos.parent / "a b.db"
    run(photos, checkpoint, ON)
    with closing(pycolmap.Database.open(str(database))) as opened:
        camera = opened.read_all_cameras()[0]
        camera.params = camera.params * 1.01
        opened.update_camera(camera)
    before = keypoints_of(database)
    assert run(photos, checkpoint, ON).done > 0
    assert_close(keypoints_of(database), before)
    name = min(before)
    with closing(pycolmap.Database.open(str(database))) as opened:
        moved_id = opened.read_image_with_name(name).image_id
        opened.update_keypoints(moved_id, before[name] + 1)
    with pytest.raises(OutputError, match="third-party features for 1 "):
        run(photos, checkpoint, ON)
