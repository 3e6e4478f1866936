"""A teacher without a network, for tests of what learns from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r2d2_kapture.training.teacher import Taught


class CornerTeacher:
    """Finds the same lattice in every image, and describes the colours around points.

    Args:
        around: best score near any point.

    Attributes:
        sha256: of no weights.
        seen: images it was shown.
    """

    sha256 = "0" * 64

    def __init__(self, around: float = 0.5) -> None:
        self._around = around
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor, per_image: int, extra: Tensor) -> Taught:
        self.seen.append(images)
        count, _, height, width = images.shape
        side = int(per_image**0.5 + 1)
        places = torch.linspace(0.15, 0.85, side)
        x, y = torch.meshgrid(places * width, places * height, indexing="ij")
        lattice = torch.stack([x.flatten(), y.flatten()], dim=1)[:per_image]
        points = torch.cat([lattice.expand(count, -1, -1), extra], dim=1)
        grid = 2 * points / points.new_tensor([width - 1, height - 1]) - 1
        around = F.unfold(images, 5, padding=2).view(count, -1, height, width)
        read = F.grid_sample(around, grid[:, None], align_corners=True)
        return Taught(
            images=torch.arange(count).repeat_interleave(points.shape[1]),
            points=points.flatten(0, 1),
            descriptors=F.normalize(read[:, :, 0].transpose(1, 2).flatten(0, 1), dim=1),
            scores=torch.full((len(images) * points.shape[1],), self._around),
        )
