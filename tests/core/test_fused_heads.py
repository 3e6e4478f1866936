"""The confidences of a GPU against those of the processor."""

from __future__ import annotations

import pytest
import torch

from r2d2_kapture.core import confidences
from r2d2_kapture.core.confidences import Heads
from tests.scenes.networks import random_network

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")

CUDA = torch.device("cuda", 0)
SHAPES = [(1, 1, 1), (1, 1, 9), (2, 5, 7), (1, 65, 33)]


def test_they_work_here() -> None:
    assert confidences._fuses(CUDA)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("doubled", [True, False])
def test_confidences(shape: tuple[int, ...], dtype: torch.dtype, doubled: bool) -> None:
    network = random_network("r2d2")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(*shape, network.descriptor_dim, generator=generator)
    features = features.to(dtype)
    expected = Heads(network, torch.device("cpu"))(features, doubled)
    found = Heads(network, CUDA)(features.to(CUDA), doubled)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-6)


def test_flat_maps_are_exactly_flat() -> None:
    network = random_network("r2d2")
    features = torch.full((1, 9, 9, network.descriptor_dim), 0.3, device=CUDA)
    _, repeatability = Heads(network, CUDA)(features, True)
    assert repeatability.unique().numel() == 1
