"""Both images of pairs through a network at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from r2d2_kapture.models.network import DenseFeatures


def forward_together(
    network: nn.Module, image1: Tensor, image2: Tensor, *, mixed: bool
) -> Any:
    """What a network makes of the images 1, then of the images 2, as one batch.

    So batch norm, where there is any, sees one population.

    Args:
        network: takes (N, 3, H, W) images.
        image1, image2: (B, 3, H, W) each.
        mixed: let the network compute in bfloat16.
    """
    images = torch.cat([image1, image2]).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
        return network(images)


def dense_features(
    network: nn.Module, image1: Tensor, image2: Tensor, *, mixed: bool
) -> tuple[DenseFeatures, DenseFeatures]:
    """The maps that a DenseNetwork, or a replica of one, makes of each side of pairs.

    Args: as of forward_together.
    """
    maps: DenseFeatures = forward_together(network, image1, image2, mixed=mixed)
    # the gradient of a split is one copy, that of two slices three
    halves = [torch.split(values, len(image1)) for values in maps]
    first, second = (DenseFeatures(*half) for half in zip(*halves, strict=True))
    return first, second
