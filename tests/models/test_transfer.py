"""R2D2 and Fast-R2D2 take each other's weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.models.r2d2 import R2D2, FastR2D2
from r2d2_kapture.models.transfer import transfer_weights
from tests.scenes.networks import assert_same_weights


def seeded(network: DenseNetwork) -> DenseNetwork:
    torch.manual_seed(3)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.4 - (tensor.ndim > 1) * 0.2 + 0.01)
    return network.double().eval()


@torch.inference_mode()
def test_fast_weights_see_a_doubled_picture_as_before() -> None:
    """Where every 2x2 block is constant, pooling loses nothing: from its third layer's
    output on, R2D2 sees at every second pixel what Fast-R2D2 sees."""
    fast, full = seeded(FastR2D2(width=1)), R2D2(width=1).double().eval()
    transfer_weights(fast, full)
    split = next(
        i for i, op in enumerate(fast.ops) if isinstance(op, torch.nn.MaxPool2d)
    )
    features = torch.rand(1, 16, 40, 36, dtype=torch.float64)
    doubled = F.interpolate(features, scale_factor=2.0, mode="nearest")
    coarse = fast.ops[split:-1](doubled)
    fine = full.ops[split:](doubled)
    inner = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    torch.testing.assert_close(fine[:, :, ::2, ::2][inner], coarse[inner])


def test_there_and_back_gives_the_same_weights() -> None:
    source = seeded(R2D2(width=1))
    between, back = FastR2D2(width=1).double(), R2D2(width=1).double()
    transfer_weights(source, between)
    transfer_weights(between, back)
    assert_same_weights(back, source)


@pytest.mark.parametrize(
    "target", [R2D2(width=2), R2D2(width=1, descriptor_dim=64)], ids=["width", "dim"]
)
def test_other_sizes_are_refused_and_leave_the_target(target: DenseNetwork) -> None:
    before = copy.deepcopy(target)
    with pytest.raises(CheckpointError, match="layers of the two networks differ"):
        transfer_weights(FastR2D2(width=1), target)
    assert_same_weights(target, before)
