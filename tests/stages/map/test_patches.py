"""Patches of map points, cut from images that observe them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.io import map_patches
from r2d2_kapture.io.colmap.sparse_map import read_sparse_map
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.map_patches import PATCHES_NAME, open_patches, record_type
from r2d2_kapture.refinement.patches import Templates, grey_image, patch_shape
from r2d2_kapture.refinement.registration import register
from r2d2_kapture.stages.map.patches import write_patches
from r2d2_kapture.stages.surfaces import project, surface_frames
from tests.scenes.patched_map import MAPPED, PatchedRoom, write_room


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> PatchedRoom:
    made = write_room(tmp_path_factory.mktemp("room"))
    assert write_patches(made.map_path, made.images, workers=2) == ()
    return made


def test_each_point_of_texture_is_found_again_in_every_image(room: PatchedRoom) -> None:
    """The truth is where the point projects to."""
    sparse_map = read_sparse_map(room.map_path)
    patches = open_patches(room.map_path, len(sparse_map.points))
    assert patches is not None
    errors = []
    for name, image in sparse_map.images.items():
        rows, pose = image.point_rows, image.cam_from_world
        points, camera = sparse_map.points[rows], sparse_map.cameras[name]
        assert patches.known(rows, points).mean() > 0.9
        found = patches.take(rows)
        centres = project(camera, points @ pose[:, :3].T + pose[:, 3])
        frames = surface_frames(camera, pose, points, found.tangents)
        seen = np.isfinite(frames).all(axis=(1, 2))
        start = kapture_from_colmap(centres[seen]) + [0.6, -0.5]
        registration = register(
            Templates(pixels=found.pixels, zooms=found.zooms).take(seen),
            grey_image(read_rgb(room.images[name])),
            start,
            frames[seen],
            dataclasses.replace(RefineConfig(), shape_prior=0.03),
        )
        moved = registration.moved
        assert moved.mean() > 0.4
        places = registration.keypoints[moved] - kapture_from_colmap(
            centres[seen][moved]
        )
        errors.append(np.linalg.norm(places, axis=1))
    assert np.median(np.concatenate(errors)) < 0.15


def test_patches_are_the_same_for_any_number_of_workers(
    room: PatchedRoom, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(room.map_path, tmp_path / "map"))
    (again / PATCHES_NAME).unlink()
    write_patches(again, room.images, workers=1)
    assert (again / PATCHES_NAME).read_bytes() == (
        (room.map_path / PATCHES_NAME).read_bytes()
    )
    assert [path.name for path in again.iterdir() if path.name[0] == "."] == []


def test_patches_that_are_there_stay(room: PatchedRoom, tmp_path: Path) -> None:
    (tmp_path / PATCHES_NAME).write_bytes(b"mine")
    assert write_patches(tmp_path, room.images, workers=1) == ()
    assert (tmp_path / PATCHES_NAME).read_bytes() == b"mine"


def test_without_images_there_are_no_patches(room: PatchedRoom, tmp_path: Path) -> None:
    again = Path(shutil.copytree(room.map_path, tmp_path / "map"))
    (again / PATCHES_NAME).unlink()
    assert write_patches(again, {n: tmp_path / n for n in MAPPED}, workers=1) == ()
    assert open_patches(again, 1) is None


def test_a_broken_image_is_a_warning_and_the_others_have_patches(
    room: PatchedRoom, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(room.map_path, tmp_path / "map"))
    (again / PATCHES_NAME).unlink()
    broken = tmp_path / "é broken.png"
    broken.write_bytes(room.images[min(MAPPED)].read_bytes()[:2000])
    (warning,) = write_patches(
        again,
        {**room.images, min(MAPPED): broken},
        workers=2,
    )
    assert warning.startswith("1 image cannot be read") and "é broken.png" in warning
    less, whole = (
        np.load(place / PATCHES_NAME)["pixels"].any(axis=(1, 2, 3)).sum()
        for place in (again, room.map_path)
    )
    assert 0 < less < whole


def test_the_size_of_a_point_is_what_the_help_says() -> None:
    size = record_type(patch_shape(RefineConfig())).itemsize
    for text in (MapConfig.__doc__, map_patches.__doc__):
        assert f"{size} bytes a point" in str(text)
