"""R2D2 and Fast-R2D2: L2-Net with dilations in place of strides.

Revaud et al., NeurIPS 2019, section 3.1: the L2-Net of Tian et al. (CVPR 2017) kept at
full resolution, its last 8x8 convolution replaced by three 2x2 ones.
"""

from __future__ import annotations

from torch import nn

from r2d2_kapture.models.network import DenseNetwork


class R2D2(DenseNetwork):
    """The published network, at full resolution throughout.

    Args:
        width: width multiplier; layers have 8, 8, 16, 16, 32, 32 times as many
            channels (4 for the published networks, 6 for the big one).
        descriptor_dim: length of a descriptor.
    """

    def __init__(self, width: int = 4, descriptor_dim: int = 128) -> None:
        channels = [3] + [width * c for c in (8, 8, 16, 16, 32, 32)]
        dilations = (1, 1, 1, 2, 2, 4)
        layers: list[nn.Module] = []
        for i, dilation in enumerate(dilations):
            layers += _conv3x3(channels[i], channels[i + 1], dilation)
        layers += _final_2x2_stack(channels[-1], descriptor_dim, dilations=(4, 8, 16))
        super().__init__(nn.Sequential(*layers), descriptor_dim)


class FastR2D2(DenseNetwork):
    """The fast variant: 2x2 max-pooling after the third layer, upsampled at the end.

    Args:
        width: width multiplier, as for R2D2.
        descriptor_dim: length of a descriptor.
    """

    def __init__(self, width: int = 4, descriptor_dim: int = 128) -> None:
        channels = [3] + [width * c for c in (8, 8, 16, 16, 32, 32)]
        dilations = (1, 1, 1, 1, 1, 2)
        layers: list[nn.Module] = []
        for i, dilation in enumerate(dilations):
            layers += _conv3x3(channels[i], channels[i + 1], dilation)
            if i == 2:
                layers.append(nn.MaxPool2d(2))
        layers += _final_2x2_stack(channels[-1], descriptor_dim, dilations=(2, 4, 8))
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        super().__init__(nn.Sequential(*layers), descriptor_dim)


def _conv3x3(inputs: int, outputs: int, dilation: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
        nn.BatchNorm2d(outputs, affine=False),
        nn.ReLU(inplace=True),
    ]


def _final_2x2_stack(
    channels: int, descriptor_dim: int, dilations: tuple[int, int, int]
) -> list[nn.Module]:
    """Three linear 2x2 convolutions, batch norm between them, no activation."""
    first, second, last = (
        nn.Conv2d(channels, outputs, 2, padding=dilation // 2, dilation=dilation)
        for outputs, dilation in zip((channels, channels, descriptor_dim), dilations)
    )
    return [
        first,
        nn.BatchNorm2d(channels, affine=False),
        second,
        nn.BatchNorm2d(channels, affine=False),
        last,
    ]
