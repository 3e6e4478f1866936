"""Local features at known places or at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from r2d2_kapture.io.features.fields import features_from_fields
from r2d2_kapture.types import LocalFeatures


def unit_rows(count: int, dim: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random unit vectors."""
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def features_at(
    keypoints: npt.ArrayLike,
    descriptors: npt.ArrayLike | None = None,
    image_size: tuple[int, int] = (640, 480),
) -> LocalFeatures:
    """Features at given places; without descriptors each is like no other."""
    points = np.asarray(keypoints, dtype=np.float32).reshape(-1, 2)
    count = len(points)
    if descriptors is None:
        descriptors = np.eye(max(count, 1))[:count]
    return LocalFeatures(
        keypoints=points,
        scales=np.full(count, 32, dtype=np.float32),
        scores=np.ones(count, dtype=np.float32),
        descriptors=np.asarray(descriptors, dtype=np.float32),
        image_size=image_size,
    )


def random_features(count: int, dim: int = 128, seed: int = 0) -> LocalFeatures:
    """Random features, best first."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, dim))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    scores = np.sort(rng.random(count, dtype=np.float32))[::-1]
    return LocalFeatures(
        keypoints=rng.random((count, 2), dtype=np.float32) * np.float32(2000),
        scales=rng.uniform(32, 128, count).astype(np.float32),
        scores=np.ascontiguousarray(scores),
        descriptors=descriptors.astype(np.float32),
        image_size=(2048, 1536),
    )


def read_mat(path: Path) -> LocalFeatures:
    """Features of a MATLAB file, as SciPy reads it."""
    fields = loadmat(path, appendmat=False)
    vectors = {name: fields[name].ravel() for name in ("scores", "imsize")}
    return features_from_fields(path, fields | vectors)


def read_colmap_text(path: Path) -> tuple[npt.NDArray[np.float64], ...]:
    """Features in COLMAP's text format, in the conventions of the package.

    Returns:
        (N, 2) keypoints from the centre of the first pixel, (N,) patch sides in pixels,
        (N, 128) descriptors of unit norm.
    """
    header, *lines = path.read_text("utf-8").splitlines()
    assert header == f"{len(lines)} 128"
    rows = np.array([line.split() for line in lines], np.float64).reshape(-1, 132)
    descriptors = rows[:, 4:] / 127.5 - 1
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return rows[:, :2] - 0.5, 12 * rows[:, 2], descriptors


def assert_same_features(first: LocalFeatures, second: LocalFeatures) -> None:
    assert first.image_size == second.image_size
    for field in ("keypoints", "scales", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
