"""Known poses in blocks: the tracks of one block, whatever the borders cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from tests.scenes.street import Street
from tests.scenes.world import Scene
from tests.stages.map_runs import model_of, outputs, prepare, run

STREET = Street(images=40, noise=0.3)
Track = frozenset[tuple[int, int]]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The street with poses, and its map of one block in ``map``."""
    root = STREET.write(tmp_path_factory.mktemp("street"))
    run(root, MapConfig(block_images=STREET.images))
    return root


def _points(sparse: Path) -> dict[Track, np.ndarray]:
    """Where each track lies, which no two points share."""
    model = pycolmap.Reconstruction(str(sparse))
    found = {
        frozenset((e.image_id, e.point2D_idx) for e in point.track.elements): point.xyz
        for point in model.points3D.values()
    }
    assert len(found) == model.num_points3D()
    return found


@pytest.mark.parametrize("block_images", [2, 7, 20])
def test_blocks_give_the_tracks_of_one_block(street: Path, block_images: int) -> None:
    output = street / f"blocks of {block_images}"
    report = run(street, MapConfig(block_images=block_images), output=output)
    assert report.failed == ()
    blocks = -(-STREET.images // block_images)
    assert report.details["blocks"] == blocks
    assert json.loads((output / "report.json").read_text())["blocks"] == blocks
    whole, joined = _points(street / "map" / "sparse"), _points(output / "sparse")
    assert joined.keys() == whole.keys()
    distances = [np.linalg.norm(joined[track] - whole[track]) for track in whole]
    assert np.median(distances) < 1e-6
    assert np.max(distances) < 0.02  # of 10: where the adjustment ended
    model = pycolmap.Reconstruction(str(output / "sparse"))
    seen = sum(map(len, joined))
    assert seen == len(frozenset().union(*joined)) == model.compute_num_observations()
    error = report.details["mean_reprojection_error"]
    one = model_of(street).compute_mean_reprojection_error()
    assert error == pytest.approx(one, rel=1e-3)
    for image_id, image in model.images.items():
        true = STREET.cam_from_world(image_id - 1)
        found = image.cam_from_world()
        np.testing.assert_allclose(found.matrix(), true.matrix(), rtol=0, atol=1e-12)


def test_a_second_run_gives_the_same_bytes(street: Path) -> None:
    config = MapConfig(block_images=7)
    for name in ("first run", "second run"):
        run(street, config, output=street / name)
    assert outputs(street / "first run") == outputs(street / "second run")


def test_a_small_set_is_one_block(street: Path) -> None:
    run(street, output=street / "default")
    assert outputs(street / "default" / "sparse") == outputs(street / "map" / "sparse")


def test_tracks_of_rigs_across_all_blocks_stay_whole(tmp_path: Path) -> None:
    """Each of 12 images sees each of 120 points."""
    root = prepare(tmp_path, Scene())
    report = run(root, MapConfig(block_images=4))
    assert report.details["registered_images"] == 12
    assert report.details["points"] == 120
    assert report.details["mean_track_length"] == 12
    assert report.details["mean_reprojection_error"] < 1e-3
    model, truth = model_of(root), Scene().points
    found = np.array([point.xyz for point in model.points3D.values()])
    distances = np.linalg.norm(found[:, None] - truth[None], axis=2)
    assert distances.min(axis=1).max() < 1e-3


def test_parts_that_no_pair_connects_are_in_one_map(tmp_path: Path) -> None:
    parted = Street(images=20, gap=9)
    parted.write(tmp_path)
    report = run(tmp_path, MapConfig(block_images=8))
    assert (report.failed, report.details["registered_images"]) == ((), 20)
    whole = run(tmp_path, MapConfig(block_images=20), output=tmp_path / "whole")
    assert report.details["points"] == whole.details["points"]
    assert report.details["observations"] == whole.details["observations"]


def test_cameras_that_are_refined_take_one_block(street: Path) -> None:
    for block_images in (7, STREET.images):
        report = run(
            street,
            MapConfig(block_images=block_images, refine_intrinsics=True),
            output=street / f"refined {block_images}",
        )
        unused = [text for text in report.warnings if "are refined take all" in text]
        assert len(unused) == (block_images < STREET.images)
    folders = [street / f"refined {n}" / "sparse" for n in (7, STREET.images)]
    assert outputs(folders[0]) == outputs(folders[1])


def test_images_without_pose_are_left_out_of_blocks(tmp_path: Path) -> None:
    """The pairs of what is left out take no part."""
    Street(images=20).write(tmp_path)
    poses = tmp_path / "mapping" / "sensors" / "trajectories.txt"
    lines = poses.read_text("utf-8").splitlines(keepends=True)
    left = [line for line in lines if line.partition(",")[0].strip() != "5"]
    poses.write_text("".join(left), "utf-8")
    config = MapConfig(method="triangulate", block_images=6)
    report = run(tmp_path, config)
    assert report.details["registered_images"] == 19
    assert "1 images without a pose" in " ".join(report.warnings)
