"""Features written as the format says, byte by byte, without the code under test."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER = "# kapture format: 1.1\n"
SUFFIXES = {"keypoints": ".kpt", "descriptors": ".desc", "global_features": ".gfeat"}
Rows = Mapping[str, npt.NDArray[np.generic]]


def unit_rows(count: int, dim: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random unit vectors."""
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


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
