"""Features for the tests of the file formats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from r2d2_kapture.types import LocalFeatures

MakeFeatures = Callable[..., LocalFeatures]


@pytest.fixture(scope="session")
def make_features() -> MakeFeatures:
    """Make ``count`` random features, best first, with ``dim`` descriptor values."""

    def make(count: int, dim: int = 128, seed: int = 0) -> LocalFeatures:
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

    return make
