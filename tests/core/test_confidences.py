"""Both confidences of features, at their size and at twice that."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.core import confidences
from r2d2_kapture.core.confidences import Heads
from tests.scenes.networks import random_network

SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (11, 13)]


def some_features(*size: int) -> Tensor:
    return torch.randn(2, *size, 16, generator=torch.Generator().manual_seed(0))


def of_the_network(features: Tensor) -> tuple[Tensor, Tensor]:
    """The confidences as the network has them of (B, H, W, D) features."""
    network = random_network("r2d2")
    squared = features.permute(0, 3, 1, 2).double() ** 2
    network.double()
    repeatable = F.softplus(network.sal(squared))[:, 0]
    reliability = F.softmax(network.clf(squared), dim=1)[:, 1]
    return reliability.float(), (repeatable / (1 + repeatable)).float()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("places", [1, 30, 1 << 20])
def test_confidences_are_those_of_the_network(
    size: tuple[int, int],
    doubled: bool,
    places: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confidences, "PLACES", places)
    features = some_features(*size)
    heads = Heads(random_network("r2d2"), torch.device("cpu"))
    whole = features
    if doubled:
        planes = features.permute(0, 3, 1, 2)
        enlarged = F.interpolate(planes, scale_factor=2, mode="bilinear")
        whole = enlarged.permute(0, 2, 3, 1)
    for found, expected in zip(heads(features, doubled), of_the_network(whole)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_flat_map_stays_exactly_flat_when_doubled() -> None:
    features = some_features(1, 1).expand(2, 9, 8, 16).contiguous()
    heads = Heads(random_network("r2d2"), torch.device("cpu"))
    for confidence in heads(features, True):
        assert (confidence == confidence[:, :1, :1]).all()
