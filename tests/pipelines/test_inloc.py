"""InLoc in miniature: cutouts from one place make a map, by their scan."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.io import savemat

from pipelines import inloc
from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pose_files import read_pose_file
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from tests.commands import one_error_line
from tests.scenes.benchmarks import (
    Miniature,
    far,
    pinhole,
    square,
    typed,
    view,
    words,
    write_lines,
)

SIZE = (320, 240)
WORLD_FROM_SCAN = pycolmap.Rigid3d(
    pycolmap.Rotation3d(np.array([0.3, -0.2, 0.5])), np.array([3.0, -2.0, 1.0])
)


def turned(number: float) -> pycolmap.Rigid3d:
    """A cutout of the scan, which turns about one place."""
    turn = pycolmap.Rotation3d(np.array([0.05 * number, 0.12 * number - 0.24, 0.0]))
    return pycolmap.Rigid3d(turn, turn * np.array([0.2, 0.1, 0.3]))


def write_inloc(root: Path) -> Miniature:
    """Four cutouts of a scan, all from one place, and two photographs."""
    mini = Miniature(root / "inloc", walls=True)
    camera = pinhole(SIZE, 290.0)
    for number in range(4):
        name = f"database/cutouts/DUC1/007/DUC_cutout_007_{30 * number}_0.jpg"
        image = mini.take(name, name, camera, turned(number))
        depth = mini.depth(camera, turned(number)).astype(np.float64)
        columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
        pixels = np.column_stack([columns.ravel(), rows.ravel()]).astype(np.float64)
        rays = camera.cam_from_img(colmap_from_kapture(pixels))
        there = np.column_stack([rays, np.ones(len(rays))]) * depth.reshape(-1, 1)
        scan_from_cam = WORLD_FROM_SCAN.inverse() * turned(number).inverse()
        xyz = (scan_from_cam * there).reshape(SIZE[1], SIZE[0], 3)
        xyz[:10] = np.nan  # not scanned
        savemat(f"{image}.mat", {"XYZcut": xyz}, do_compression=True)
    before = square(WORLD_FROM_SCAN.inverse())
    write_lines(
        mini.root / "database/alignments/DUC1/transformations/DUC_trans_007.txt",
        ["DUC1", *map(words, before), "", "P_after_GICP:"]
        + [words(row) for row in square(WORLD_FROM_SCAN)],
    )
    phone = pinhole((400, 300), 400 * 28 / 36)
    for number in (0.5, 2.5):
        name = f"query/iphone7/IMG_07{int(10 * number)}.JPG"
        mini.take(name, name, phone, view(number))
    mini.write_features(root / "features")
    return mini


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_inloc(tmp_path_factory.mktemp("inloc"))


def command(root: Path, output: Path) -> list[str]:
    return typed(root, root.parent / "features", output)


def test_inloc(mini: Miniature, tmp_path: Path) -> None:
    output = tmp_path / "work"
    assert inloc.main(command(mini.root, output)) == 0
    poses = read_pose_file(output / "submission.txt")
    assert set(poses) == {"IMG_075.JPG", "IMG_0725.JPG"}
    assert (
        max(far({f"query/iphone7/{n}": p for n, p in poses.items()}, mini.truth)) < 5e-3
    )
    mapping = open_dataset(output / "inloc/datasets/mapping")
    assert max(far(read_camera_poses(mapping).cam_from_world, mini.truth)) < 1e-4
    focal = [float(c.camera_params[2]) for c in mapping.data.cameras.values()]
    np.testing.assert_allclose(focal, 290, atol=0.05)
    cameras = output / "cameras.json"
    stamp = cameras.stat().st_mtime_ns
    assert inloc.main(command(mini.root, output)) == 0
    assert cameras.stat().st_mtime_ns == stamp


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage, text",
    [
        (
            lambda d: next(d.rglob("*.mat")).unlink(),
            ".jpg.mat: found no such file or folder, expected XYZcut",
        ),
        (lambda d: next(d.rglob("*.mat")).write_bytes(b"MATLAB"), "cannot be read"),
        (
            lambda d: savemat(next(d.rglob("*.mat")), {"XYZcut": np.zeros((2, 2, 3))}),
            "found XYZcut of (2, 2, 3), expected (240, 320, 3)",
        ),
        (
            lambda d: shutil.rmtree(d / "database/alignments"),
            "DUC_trans_007.txt: found no such file or folder, expected the pose of",
        ),
        (
            lambda d: next(d.rglob("DUC_trans_007.txt")).write_text("1 2 3 4\n"),
            "found 1 lines of 4 numbers, expected the 4 of P_after_GICP",
        ),
        (lambda d: shutil.rmtree(d / "query"), "iphone7: found no such file or folder"),
    ],
)
def test_what_inloc_lacks(
    mini: Miniature,
    damage: Damage,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(mini.root.parent, tmp_path / "data")
    damage(tmp_path / "data" / "inloc")
    assert inloc.main(command(tmp_path / "data" / "inloc", tmp_path / "work")) == 2
    assert text in one_error_line(capsys)
