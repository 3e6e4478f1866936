"""Windows of an enlarged map are those of the whole enlarged map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from r2d2_kapture.core.upsampling import upsample_window


@pytest.mark.parametrize("small", [(1, 1), (1, 5), (4, 1), (6, 9)])
@pytest.mark.parametrize(
    "large, rows, columns",
    [
        ((1, 1), slice(0, 1), slice(0, 1)),
        ((2, 11), slice(1, 2), slice(3, 8)),
        ((13, 20), slice(0, 13), slice(0, 20)),
        ((13, 20), slice(3, 8), slice(17, 20)),
    ],
)
def test_windows_are_those_of_the_whole(
    small: tuple[int, int], large: tuple[int, int], rows: slice, columns: slice
) -> None:
    features = torch.randn(2, 3, *small, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(features, large, mode="bilinear", align_corners=True)
    found = upsample_window(features.permute(0, 2, 3, 1), large, rows, columns)
    expected = whole[:, :, rows, columns].permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_sixteen_bits_are_enlarged_in_float32() -> None:
    features = torch.tensor([1.0, 1.0 + 2**-7]).bfloat16().view(1, 1, 2, 1)
    found = upsample_window(features, (1, 5), slice(0, 1), slice(0, 5))
    assert found.dtype == torch.float32
    expected = torch.linspace(1, 1 + 2**-7, 5)
    torch.testing.assert_close(found.flatten(), expected)
