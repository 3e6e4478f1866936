"""Maps read between their pixels."""

from __future__ import annotations

import torch

from r2d2_kapture.training.keypoints import sample_rows


def test_maps_are_read_between_their_pixels() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    maps = torch.stack([torch.stack([x, y, x * y]), torch.stack([-x, -y, -x * y])])
    images = torch.tensor([0, 1, 0, 1])
    points = torch.tensor([[0.0, 0.0], [1.25, 2.5], [4.0, 3.0], [4.0, 0.5]])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])
    product = points.prod(dim=1, keepdim=True)
    expected = torch.cat([points, product], dim=1) * sign[:, None]
    found = sample_rows(maps.to(memory_format=torch.channels_last), images, points)
    assert torch.allclose(found, expected)
    maps[0, 0, 0, 0] = torch.nan
    assert sample_rows(maps, images, points)[0].isnan().tolist() == [True, False, False]


def test_places_have_slopes_too() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)  # x + 4 y
    points = torch.tensor([[1.0, 1.0], [2.5, 0.25]], requires_grad=True)
    found = sample_rows(maps, torch.zeros(2, dtype=torch.int64), points)
    (slopes,) = torch.autograd.grad(found.sum(), points)
    assert slopes.tolist() == [[1, 4], [1, 4]]
