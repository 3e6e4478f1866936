"""From a folder of images to a COLMAP database, new or there before."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.io.colmap.sparse_map import read_sparse_map
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages import pipeline
from r2d2_kapture.stages.view.sources import image_folder
from tests.scenes.colmap import Foreign
from tests.scenes.world import FOCAL, HEIGHT, WIDTH, Scene
from tests.stages.colmap_runs import FORCED, QUIET, content, keypoints_of, run

CHECKOUT = Path(__file__).resolve().parents[3]


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


def test_sparse_model(photos: Path, checkpoint: Checkpoint, scene: Scene) -> None:
    sparse = photos.parent / "sparse"
    report = run(photos, checkpoint, sparse=sparse)
    assert report.details["registered_images"] == 6
    assert report.details["points"] == 120
    assert sorted(os.listdir(sparse)) == ["0", "manifest.json", "r2d2_kapture.json"]
    model = pycolmap.Reconstruction(str(sparse / "0"))
    assert (sparse / "0" / "map.ply").exists()
    for place in (sparse, sparse / "0", photos.parent / "a b.db"):
        assert (image_folder(None, place) / scene.names[0]).is_file()
    assert len(read_sparse_map(sparse).images) == len(scene.names)
    (sparse / "0" / "map.png").unlink()
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
    assert (sparse / "0" / "map.png").exists()
    with pytest.raises(OutputError, match="seed: 0, not 7"):
        other = ColmapConfig(map=MapConfig(seed=7))
        run(photos, checkpoint, other, sparse=sparse)


def test_foreign_sparse_folders_are_kept(photos: Path, checkpoint: Checkpoint) -> None:
    sparse = photos.parent / "sparse"
    (sparse / "0").mkdir(parents=True)
    (sparse / "0" / "cameras.bin").write_bytes(b"precious")
    for options in (QUIET, FORCED):
        with pytest.raises(
            OutputError, match="found '0/cameras.bin' without a manifest"
        ):
            run(photos, checkpoint, sparse=sparse, options=options)
    assert (sparse / "0" / "cameras.bin").read_bytes() == b"precious"


def test_pairs_of_a_list(photos: Path, checkpoint: Checkpoint, scene: Scene) -> None:
    listed = photos.parent / "pairs.txt"
    first, second, third = scene.names[:3]
    listed.write_text(
        f"{first}, {second}, 1\n{second}, {third}, 0.5\n", encoding="utf-8"
    )
    assert run(photos, checkpoint, pairs_list=listed).details["pairs"] == 2
    listed.write_text(f"{first} {second}\n", encoding="utf-8")
    assert run(photos, checkpoint, pairs_list=listed).details["pairs"] == 1
    decomposed = unicodedata.normalize("NFD", first)
    assert decomposed != first
    listed.write_text(f"{decomposed}, {second}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="another Unicode form of it: rename one"):
        run(photos, checkpoint, pairs_list=listed)
    listed.write_text(
        f"{first}, {second}, 1\n{first}, absent.jpg, 1\n", encoding="utf-8"
    )
    with pytest.raises(DatasetError, match="'absent.jpg' is not among"):
        run(photos, checkpoint, pairs_list=listed)


def test_many_images_are_paired_by_likeness(
    photos: Path, checkpoint: Checkpoint
) -> None:
    config = ColmapConfig(
        folder=FolderConfig(exhaustive_limit=5),
        pairing=PairsConfig(top_k=2, vlad_clusters=2),
    )
    details = run(photos, checkpoint, config).details
    assert 6 <= details["pairs"] <= 12
    assert details["pairing"] == "local"
    assert (photos.parent / "a b_r2d2" / "pairs" / "local.txt").is_file()


def test_images_that_cannot_be_used_are_reported(
    photos: Path, checkpoint: Checkpoint
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    Image.new("L", (WIDTH, HEIGHT)).save(photos / "one, two.png")
    report = run(photos, checkpoint)
    assert sorted(f.name for f in report.failed) == ["broken.jpg", "one, two.png"]
    assert report.details["verified_pairs"] == 15


def test_a_list_may_name_images_that_cannot_be_used(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    Image.new("L", (WIDTH, HEIGHT)).save(photos / "one,two.png")
    listed, (first, second) = photos.parent / "pairs.txt", scene.names[:2]
    unusable = f"{first}\tbroken.jpg\n{first}\tone,two.png\n"
    listed.write_text(f"{unusable}{first}\t{second}\n", "utf-8")
    assert run(photos, checkpoint, pairs_list=listed).details["pairs"] == 1
    listed.write_text(unusable, "utf-8")
    with pytest.raises(
        DatasetError, match="pairs.txt: found no pair.*expected 2 images"
    ):
        run(photos, checkpoint, pairs_list=listed)


def test_one_image_is_too_few(
    photos: Path, checkpoint: Checkpoint, scene: Scene
) -> None:
    for name in scene.names[1:]:
        (photos / name).unlink()
    with pytest.raises(DatasetError, match="no pair among 1 image, 1 with features"):
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


def test_foreign_work_folders_are_kept(photos: Path, checkpoint: Checkpoint) -> None:
    work = photos.parent / "a b_r2d2"
    work.mkdir()
    (work / "thesis.tex").write_text("precious", encoding="utf-8")
    for options in (QUIET, FORCED):
        with pytest.raises(OutputError, match="found 'thesis.tex' without a manifest"):
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
from r2d2_kapture.stages import colmap
from r2d2_kapture.stages.colmap import database as colmap_database
from tests.scenes.world import Scene
from tests.scenes.extraction import patch_extraction

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
           weights=load_checkpoint(weights), options=RunOptions(progress=False))
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


def test_the_pipeline_makes_the_same_model_of_the_same_photographs(
    photos: Path, checkpoint: Checkpoint
) -> None:
    """Known cameras are kept by both, and poses agree."""
    folder = FolderConfig(camera_model="PINHOLE", camera_params="500,500,320,240")
    sparse, work = photos.parent / "sparse", photos.parent / "work"
    run(photos, checkpoint, ColmapConfig(folder=folder), sparse=sparse)
    pipeline.run(
        PipelineConfig(photographs=folder, extract=ExtractConfig()),
        images=photos,
        queries={},
        output=work,
        weights=checkpoint,
        options=QUIET,
    )
    ours = pycolmap.Reconstruction(str(sparse / "0"))
    theirs = pycolmap.Reconstruction(str(work / "map" / "sparse"))
    for model in (ours, theirs):
        (camera,) = model.cameras.values()
        assert camera.model_name == "PINHOLE"
        np.testing.assert_array_equal(camera.params, [500, 500, 320, 240])
    poses = [
        {image.name: image.cam_from_world().matrix() for image in model.images.values()}
        for model in (ours, theirs)
    ]
    assert poses[0].keys() == poses[1].keys() and len(poses[0]) == 6
    for name, pose in poses[0].items():
        np.testing.assert_allclose(pose, poses[1][name], rtol=0, atol=1e-6)
