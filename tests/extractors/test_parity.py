"""The published extractor's keypoints, descriptors and scores, on its own settings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from r2d2_kapture.config.extract import EngineConfig, PyramidConfig, SelectionConfig
from r2d2_kapture.core.runtime import resolve_runtime
from r2d2_kapture.extractors.r2d2 import R2D2Extractor
from r2d2_kapture.models.checkpoints import load_checkpoint
from tests.scenes.networks import torch_threads

REFERENCES = [
    "faster2d2_WASF_N16__test",
    "r2d2_WAF_N16__peppers",
    "r2d2_WASF_N8_big__test__small",
    pytest.param("faster2d2_WASF_N16__brooklyn", marks=pytest.mark.slow),
    pytest.param("r2d2_WASF_N16__test", marks=pytest.mark.slow),
    pytest.param("r2d2_WASF_N16__brooklyn__fullres", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As the references were computed: one thread breaks other ties on flat areas."""
    with torch_threads(2):
        yield


@pytest.mark.shared
@pytest.mark.parametrize("stem", REFERENCES)
def test_published_outputs_are_reproduced(shared: Path, stem: str) -> None:
    weights, image_name = stem.split("__")[:2]
    with np.load(shared / "reference" / "extraction" / f"{stem}.npz") as archive:
        reference = dict(archive)
    limits = ast.literal_eval(str(reference["params"]) or "{}")
    network = load_checkpoint(shared / "data" / "weights" / f"{weights}.pt").network
    image = np.array(
        Image.open(shared / "data" / "images" / f"{image_name}.png").convert("RGB")
    )
    extract = R2D2Extractor(
        network,
        PyramidConfig(coordinates="published", **limits),
        SelectionConfig(top_k=0, subpixel=False),
        resolve_runtime(EngineConfig(gpu=-1, precision="fp32")),
    )
    features = extract(image)

    assert features.image_size == tuple(reference["imsize"])
    assert len(features) == pytest.approx(int(reference["total"]), rel=1e-3)
    # the patch size tells the levels apart: they differ by 5 pixels and more
    distance, index = cKDTree(features.keypoints_with_scale).query(
        reference["keypoints"], distance_upper_bound=0.01
    )
    found = np.isfinite(distance)
    assert found.mean() >= 0.998
    descriptors = features.descriptors[index[found]]
    expected = reference["descriptors"][found].astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (descriptors * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(
        features.scores[index[found]], reference["scores"][found], rtol=0, atol=1e-4
    )
    # both are the best 1000; keypoints of equal score may be cut differently
    assert features.scores[len(reference["scores"]) - 1] == pytest.approx(
        reference["scores"].min(), abs=1e-4
    )
