"""Feature maps and flows of a few cells, for the loss of D2-Net."""

from __future__ import annotations

import torch
from torch import Tensor

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig

HEIGHT, WIDTH = 7, 8
PIXELS = (4 * HEIGHT + 4, 4 * WIDTH + 4)
"""Of the image: the last pooling costs a row and a column."""
SMALL = D2NetTrainingConfig(safe_radius=1, least_correspondences=4)


def random_maps(
    seed: int, batch: int = 1, channels: int = 6, scale: float = 1.0
) -> Tensor:
    """Leaves as after a ReLU: about half of the features are 0."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(
        batch, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64
    )
    return (scale * maps.clamp(min=0)).requires_grad_()


def flow_of_shift(x: float, y: float, batch: int = 1) -> Tensor:
    rows, columns = torch.meshgrid(*map(torch.arange, PIXELS), indexing="ij")
    flow = torch.stack([columns + x, rows + y]).double()
    return flow.expand(batch, -1, -1, -1).clone()
