"""The kernels of a GPU against arg-maxes of products in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r2d2_kapture.matching import mutual_nn
from r2d2_kapture.matching.mutual_nn import match_mutual_nearest
from tests.scenes.features import unit_rows

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")
fused_nn = pytest.importorskip("r2d2_kapture.matching.fused_nn")

CUDA = torch.device("cuda", 0)
SIZES = [(1, 1), (1, 300), (300, 1), (31, 33), (128, 128), (1000, 700), (5000, 4096)]


def on_gpu(rows: int, dim: int = 128, *, seed: int, near: float = 0.0) -> torch.Tensor:
    """Unit rows; the nearer to each other, the less float16 tells them apart."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, dim)) + near * np.arange(dim) / dim
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return torch.from_numpy(values.astype(np.float32)).to(CUDA)


def test_it_works_here() -> None:
    assert mutual_nn._fuses(CUDA)


@pytest.mark.parametrize("rows, columns", SIZES)
@pytest.mark.parametrize("dim", [128, 40, 512])
@pytest.mark.parametrize("near", [0.0, 30.0])
def test_the_nearest_are_those_of_float64(
    rows: int, columns: int, dim: int, near: float
) -> None:
    first = on_gpu(rows, dim, seed=1, near=near)
    second = on_gpu(columns, dim, seed=2, near=near)
    nearest, back, similarity = fused_nn.nearest_both_ways(first, second)
    exact = (first.double() @ second.double().T).cpu()
    np.testing.assert_array_equal(nearest, exact.argmax(1).numpy())
    np.testing.assert_array_equal(back, exact.argmax(0).numpy())
    np.testing.assert_allclose(similarity, exact.amax(1), rtol=0, atol=1e-7)


def test_float16_is_off_by_less_than_the_margin() -> None:
    first, second = on_gpu(4000, seed=3, near=30.0), on_gpu(4000, seed=4, near=30.0)
    error = first.half().float() @ second.half().float().T - first @ second.T
    assert 0 < error.abs().max().item() < fused_nn.product_error(128)


def test_of_equal_similarities_the_lower_index_counts() -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(128, dtype=np.float32)[:6]
    for _ in range(20):
        first = torch.from_numpy(axes[rng.integers(6, size=rng.integers(1, 600))])
        second = torch.from_numpy(axes[rng.integers(6, size=rng.integers(1, 900))])
        expected = match_mutual_nearest(first, second)
        found = match_mutual_nearest(first.to(CUDA), second.to(CUDA))
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("options", [{}, {"ratio": 0.9}, {"min_similarity": 0.2}])
def test_matches_are_those_of_the_processor(options: dict[str, float]) -> None:
    first, second = unit_rows(900, seed=5), unit_rows(800, seed=6)
    first[3] = second[4] = 0
    rows = [torch.from_numpy(values) for values in (first, second)]
    expected = match_mutual_nearest(*rows, **options)
    found = match_mutual_nearest(*(values.to(CUDA) for values in rows), **options)
    assert 0 < len(expected) < 800
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
