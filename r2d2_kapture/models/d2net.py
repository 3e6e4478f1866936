"""D2-Net: the features of VGG16 up to conv4_3, at a quarter of the resolution.

Dusmanu et al., "D2-Net: A Trainable CNN for Joint Description and Detection of Local
Features", CVPR 2019, section 4.1: VGG16 (Simonyan and Zisserman, ICLR 2015) cut after
conv4_3, its third pooling an average of stride 1 and the convolutions after it dilated.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.models.network import FeatureNetwork


class D2Net(FeatureNetwork):
    """The published network.

    Tensors are named ``ops.<i>``, where i counts layers as VGG16 does in torchvision.

    Args:
        width: channels of the first block; those after it have 2, 4 and 8 times as
            many (64 for the published network).
        descriptor_dim: channels of the last layer, the length of a descriptor.
    """

    family = "d2net"

    def __init__(self, width: int = 64, descriptor_dim: int = 512) -> None:
        blocks = (
            (width, width),
            (2 * width, 2 * width),
            (4 * width, 4 * width, 4 * width),
        )
        layers: list[nn.Module] = []
        channels = 3
        for block in blocks:
            for outputs in block:
                layers += _convolution(channels, outputs, dilation=1)
                channels = outputs
            layers.append(nn.MaxPool2d(2, stride=2))
        layers[-1] = nn.AvgPool2d(2, stride=1)
        for outputs in (8 * width, 8 * width, descriptor_dim):
            layers += _convolution(channels, outputs, dilation=2)
            channels = outputs
        # the last activation is left to those who use the features
        super().__init__(nn.Sequential(*layers[:-1]), descriptor_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Compute features.

        Args:
            image: (B, 3, H, W), preprocessed as the weights were trained with; H and W
                of 8 pixels or more.

        Returns:
            (B, D, H // 4 - 1, W // 4 - 1), 0 or more; coordinates are those of
            coordinates.image_from_feature_cell.
        """
        return F.relu(self.ops(image))


def _convolution(inputs: int, outputs: int, dilation: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
        nn.ReLU(inplace=True),
    ]
