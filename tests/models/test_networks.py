"""Shapes, ranges and receptive fields of the networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.network import DenseNetwork, repeatability_from_logit
from r2d2_kapture.models.registry import Architecture, build_network
from tests.scenes.networks import NAMES, random_network


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(2, 3, height, width, generator=generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 40), (33, 41), (2, 3), (2, 64)])
def test_maps_have_the_size_of_the_image(name: str, size: tuple[int, int]) -> None:
    network = random_network(name)
    maps = network(noise(*size))
    stride = network.pixel_stride
    height, width = (side // stride * stride for side in size)
    assert maps.descriptors.shape == (2, 16, height, width)
    assert maps.reliability.shape == (2, 1, height, width)
    assert maps.repeatability.shape == (2, 1, height, width)
    norms = maps.descriptors.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    for confidence in (maps.reliability, maps.repeatability):
        assert float(confidence.min()) >= 0
        assert float(confidence.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_random_maps_vary(name: str) -> None:
    """Else the tests that look for maxima mean nothing."""
    maps = random_network(name)(noise(64, 64))
    for confidence in (maps.reliability, maps.repeatability):
        assert float(confidence.std()) > 0.01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width, dim", [(1, 8), (4, 128), (6, 128)])
def test_width_and_dimension_reach_the_layers(name: str, width: int, dim: int) -> None:
    network = build_network(
        Architecture(name=name, width=width, descriptor_dim=dim)
    ).eval()
    convolutions = [
        op.out_channels for op in network.ops if isinstance(op, torch.nn.Conv2d)
    ]
    channels = [width * c for c in (8, 8, 16, 16, 32, 32, 32, 32)]
    assert convolutions == [*channels, dim]
    assert network.descriptor_dim == dim
    assert network(noise(8, 8)).descriptors.shape == (2, dim, 8, 8)


def test_strides_and_numbers_of_weights_are_the_published_ones() -> None:
    """Revaud et al., NeurIPS 2019: 0.5 million, and 1.0 for the big one."""
    for width, millions in ((4, 0.5), (6, 1.0)):
        network = build_network(Architecture(name="r2d2", width=width))
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.06)
    assert random_network("r2d2").pixel_stride == 1
    assert random_network("fast_r2d2").pixel_stride == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pixel", [(80, 80), (81, 81), (80, 81)])
def test_halo_is_what_one_pixel_can_reach(name: str, pixel: tuple[int, int]) -> None:
    network = random_network(name).double()
    image = noise(160, 162)[:1].double()
    changed = image.clone()
    changed[0, :, pixel[0], pixel[1]] += 5
    difference = network.ops(changed) - network.ops(image)
    rows, columns = torch.nonzero(difference[0].abs().amax(dim=0), as_tuple=True)
    reach = max(
        int((rows - pixel[0]).abs().max()), int((columns - pixel[1]).abs().max())
    )
    assert reach <= network.halo
    assert reach >= network.halo - 2 * network.pixel_stride
    assert network.halo % network.pixel_stride == 0


def test_repeatability_of_known_logits() -> None:
    logits = torch.tensor([-100.0, 0.0, 0.541325, 100.0])  # softplus(0.541325) = 1
    found = repeatability_from_logit(logits)
    log2 = 0.69314718
    expected = torch.tensor([0.0, log2 / (1 + log2), 0.5, 100 / 101])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_reliability_is_the_probability_of_the_second_class() -> None:
    network = random_network("r2d2")
    _only_bias(network, torch.tensor([1.0, 3.0]), torch.tensor([0.0]))
    maps = network(noise(4, 4))
    expected = 1 / (1 + torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(
        maps.reliability, expected.expand_as(maps.reliability), rtol=0, atol=1e-6
    )


def _only_bias(network: DenseNetwork, clf: Tensor, sal: Tensor) -> None:
    for head, bias in ((network.clf, clf), (network.sal, sal)):
        head.weight.zero_()
        assert head.bias is not None
        head.bias.copy_(bias)


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="fast_r2d2, r2d2"):
        build_network(Architecture(name="superpoint"))


@pytest.mark.parametrize("name", NAMES)
def test_confidences_of_a_bfloat16_backbone_are_float32(name: str) -> None:
    """In bfloat16 neighbours on a peak would be equal, and both be maxima."""
    network = random_network(name)
    with torch.autocast("cpu", torch.bfloat16):
        maps = network(noise(64, 64))
    assert maps.descriptors.dtype == torch.bfloat16
    for confidence in (maps.reliability, maps.repeatability):
        assert confidence.dtype == torch.float32
        assert len(confidence.unique()) > len(confidence.bfloat16().unique())
