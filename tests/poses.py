"""Poses and kapture datasets of poses for the tests, with known truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

HEADER = "# kapture format: 1.1\n"

Array = npt.NDArray[np.float64]


def rigid3d(world_from_cam: Rotation, center: Iterable[float]) -> pycolmap.Rigid3d:
    """The cam_from_world of a camera at a place."""
    cam_from_world = world_from_cam.inv()
    translation = -cam_from_world.apply(np.asarray(center, dtype=float))
    return pycolmap.Rigid3d(
        pycolmap.Rotation3d(cam_from_world.as_quat()), np.asarray(translation)
    )


def random_poses(names: Sequence[str], seed: int = 0) -> dict[str, pycolmap.Rigid3d]:
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(len(names), rng=rng)
    centers = rng.normal(size=(len(names), 3))
    return {n: rigid3d(r, c) for n, r, c in zip(names, rotations, centers)}


def moved(
    pose: pycolmap.Rigid3d, offset: Iterable[float] = (0, 0, 0), degrees: float = 0.0
) -> pycolmap.Rigid3d:
    """The camera displaced in the world, and turned about its own z axis."""
    world_from_cam = Rotation.from_quat(pose.rotation.quat).inv()
    turn = Rotation.from_rotvec([0, 0, np.radians(degrees)])
    center = pose.inverse().translation + np.asarray(offset, dtype=float)
    return rigid3d(world_from_cam * turn, center)


def numbers(pose: pycolmap.Rigid3d) -> list[float]:
    """qw qx qy qz tx ty tz."""
    x, y, z, w = pose.rotation.quat.tolist()
    return [w, x, y, z, *pose.translation.tolist()]


def write_dataset(
    root: Path,
    names: Sequence[str],
    poses: Mapping[str, pycolmap.Rigid3d] | None = None,
) -> Path:
    """A kapture dataset of one camera; image i is taken at time i."""
    rows = [f"{time}, cam, {name}" for time, name in enumerate(names)]
    trajectories = [
        [time, "cam", *numbers(poses[name])]
        for time, name in enumerate(names)
        if poses is not None and name in poses
    ]
    write_files(
        root,
        sensors="cam, , camera, PINHOLE, 64, 48, 60, 60, 31.5, 23.5",
        records_camera="\n".join(rows),
        trajectories=None if poses is None else table(trajectories),
    )
    return root


def table(rows: Iterable[Iterable[object]]) -> str:
    return "\n".join(", ".join(map(str, row)) for row in rows)


def write_files(root: Path, **texts: str | None) -> None:
    """Write ``sensors/NAME.txt`` of kapture; None leaves the file out."""
    folder = root / "sensors"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if text is not None:
            path = folder / f"{name}.txt"
            path.write_text(f"{HEADER}{text}\n", encoding="utf-8")


def write_rig_dataset(root: Path) -> Path:
    """Two cameras in a rig in a cart, and one alone; the cart has the trajectory."""
    write_files(
        root,
        sensors=table(
            [name, "", "camera", "PINHOLE", 64, 48, 60, 60, 31.5, 23.5]
            for name in ("left", "right", "alone")
        ),
        rigs=table(
            [rig, device, *numbers(pose)]
            for (rig, device), pose in zip(
                [("head", "left"), ("head", "right"), ("cart", "head")],
                random_poses(["a", "b", "c"], seed=5).values(),
            )
        ),
        records_camera=table(
            [
                [1, "left", "run/left/1.jpg"],
                [1, "right", "run/right/1.jpg"],
                [2, "left", "run/left/2.jpg"],
                [2, "alone", "run/alone/2.jpg"],
            ]
        ),
        trajectories=table(
            [time, device, *numbers(pose)]
            for (time, device), pose in zip(
                [(1, "cart"), (2, "cart"), (2, "alone")],
                random_poses(["a", "b", "c"], seed=6).values(),
            )
        ),
    )
    return root


def skip_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stage write small files instead of pictures, which take a second."""

    def draw(*arguments: object, **_: object) -> None:
        path = next(item for item in arguments if isinstance(item, Path))
        path.write_bytes(b"picture")

    for name in ("draw_plan", "draw_cumulative_errors"):
        monkeypatch.setattr(f"r2d2_kapture.stages.evaluate.{name}", draw)


def assert_same_pose(
    found: pycolmap.Rigid3d, expected: pycolmap.Rigid3d, atol: float = 1e-12
) -> None:
    np.testing.assert_allclose(found.matrix(), expected.matrix(), rtol=0, atol=atol)
