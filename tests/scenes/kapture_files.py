"""Kapture datasets and features as the format says, without the code under test."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from tests.scenes.images import write_noise
from tests.scenes.poses import numbers, random_poses

HEADER = "# kapture format: 1.1\n"
SUFFIXES = {"keypoints": ".kpt", "descriptors": ".desc", "global_features": ".gfeat"}
Rows = Mapping[str, npt.NDArray[np.generic]]


def write_rows(
    folder: Path, kind: str, rows: Rows, *, fields: str, tar: bool = False
) -> Path:
    """Write one kind of features: its description, and a file or member an image."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.txt").write_text(f"{HEADER}# fields\n{fields}\n", "utf-8")
    members = {name + SUFFIXES[kind]: array.tobytes() for name, array in rows.items()}
    if tar:
        with tarfile.open(folder / f"{kind}.tar", "w") as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return folder
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_features(
    root: Path,
    descriptors: Rows,
    *,
    name: str = "r2d2",
    tar: bool = False,
    alone: bool = False,
) -> Path:
    """Write float32 keypoints of 3 values and descriptors of images.

    Args:
        root: a dataset, or with ``alone`` the folder of the type.
        descriptors: (N, D) by image name.
        name: of both types.
        tar: as archives.
        alone: features without a dataset, as kapture-localization keeps them.
    """
    dim = next(iter(descriptors.values())).shape[1] if descriptors else 16
    keypoints = {
        image: np.arange(3 * len(rows), dtype=np.float32).reshape(-1, 3)
        for image, rows in descriptors.items()
    }

    def folder(kind: str) -> Path:
        return root / kind if alone else root / "reconstruction" / kind / name

    write_rows(
        folder("keypoints"),
        "keypoints",
        keypoints,
        fields=f"{name}, float32, 3",
        tar=tar,
    )
    fields = f"{name}, float32, {dim}, {name}, L2"
    write_rows(
        folder("descriptors"), "descriptors", descriptors, fields=fields, tar=tar
    )
    return root


def write_global_features(root: Path, rows: Rows, name: str = "apgem") -> Path:
    """Write float32 global features of images into a dataset."""
    dim = next(iter(rows.values())).shape[-1]
    folder = root / "reconstruction" / "global_features" / name
    write_rows(folder, "global_features", rows, fields=f"{name}, float32, {dim}, L2")
    return root


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


def write_noise_dataset(root: Path) -> Path:
    """Five images of noise with spaces, accents and sub-folders in their names."""
    names = ["a.png", "b c.png", "sub/é à.png", "sub/deeper/d.png", "sub-deeper.png"]
    for seed, name in enumerate(names):
        write_noise(root / "sensors" / "records_data" / name, seed)
    return write_dataset(root, names)
