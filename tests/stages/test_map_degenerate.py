"""A map that is none is refused, with the reason and the way out."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.stages.map.calibration import VerifiedPair
from r2d2_kapture.stages.map.checks import drop_implausible
from r2d2_kapture.stages.map.pure_rotation import (
    refuse_pure_rotation,
    rotation_residual,
)
from tests.scenes.world import HEIGHT, WIDTH, Scene, TurningScene
from tests.stages.map_runs import model_of, prepare, remove_poses, run


@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("images", [3, 5])
def test_a_camera_that_only_turns_makes_no_map(
    tmp_path: Path, images: int, noise: float
) -> None:
    prepare(tmp_path, TurningScene(images=images, focal=400, noise=noise))
    with pytest.raises(ReconstructionError, match="move sideways between"):
        run(tmp_path)
    assert not (tmp_path / "map").exists()


def test_feigned_depth_is_distinguished_from_depth(
    tmp_path: Path, ready_to_map: Path
) -> None:
    shutil.copytree(ready_to_map, tmp_path / "scene")
    run(tmp_path / "scene")
    model = model_of(tmp_path / "scene")
    turning = TurningScene(images=2, focal=400, noise=0.5)
    moving = Scene()

    def pair(scene: Scene) -> VerifiedPair:
        first, second = scene.names[:2]
        rows = scene.matches(first, second).indices
        return VerifiedPair(
            image_ids=(1, 2),
            xy=(
                scene.keypoints(first)[rows[:, 0], :2].astype(np.float64),
                scene.keypoints(second)[rows[:, 1], :2].astype(np.float64),
            ),
        )

    camera = pycolmap.Camera.create_from_model_name(0, "PINHOLE", 1, WIDTH, HEIGHT)
    assert rotation_residual(pair(turning), camera, camera) < 0.003
    assert rotation_residual(pair(moving), camera, camera) > 0.006
    refuse_pure_rotation(model, [pair(turning), pair(moving), pair(moving)])
    with pytest.raises(ReconstructionError, match="the matches of 3 of 4 pairs"):
        refuse_pure_rotation(model, [pair(turning)] * 3 + [pair(moving)])


@pytest.mark.parametrize("method", ["triangulate", "global"])
def test_too_few_points_are_no_map(tmp_path: Path, method: Any) -> None:
    scene = Scene(times=2)
    scene.points = scene.points[:25]
    prepare(tmp_path, scene)
    with pytest.raises(ReconstructionError, match="expected 30|no image could be"):
        run(tmp_path, MapConfig(method=method))
    assert not (tmp_path / "map").exists()


def test_images_of_cameras_that_there_are_not_leave_the_map(
    tmp_path: Path, ready_to_map: Path
) -> None:
    root = shutil.copytree(ready_to_map, tmp_path / "scene")
    run(root)
    model = model_of(root)
    walker = max(model.cameras)
    model.cameras[walker].focal_length_x = model.cameras[walker].focal_length_y = 20
    drop_implausible(model, {walker}, 1.5)
    assert model.num_reg_images() == 12  # known to be so
    drop_implausible(model, set(), 1.5)
    left = [image for image in model.images.values() if not image.has_pose]
    assert {image.camera_id for image in left} == {walker}
    assert (len(left), model.num_reg_images()) == (4, 8)


def test_a_model_of_fewer_images_than_asked_is_no_map(root_of_two: Path) -> None:
    with pytest.raises(ReconstructionError, match="no image could be registered"):
        run(root_of_two, MapConfig(refine_intrinsics=False, min_model_size=3))


@pytest.fixture
def root_of_two(tmp_path: Path, ready_to_map: Path) -> Path:
    """Three images have verified pairs, one of them too few matches to be used."""
    root = Path(shutil.copytree(ready_to_map, tmp_path / "scene"))
    remove_poses(root)
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        database.clear_frames()
        database.clear_rigs()
        ids = sorted(image.image_id for image in database.read_all_images())
        geometry = database.read_two_view_geometry(ids[0], ids[2])
        for first in ids:
            for second in ids:
                if first < second and {first, second} != {ids[0], ids[-1]}:
                    database.delete_two_view_geometry(first, second)
        geometry.inlier_matches = geometry.inlier_matches[:16]
        database.write_two_view_geometry(ids[0], ids[2], geometry)
    return root
