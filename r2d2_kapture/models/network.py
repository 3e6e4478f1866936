"""What every local-feature network offers to extraction and training."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.extract import Preprocessing


class DenseFeatures(NamedTuple):
    """Maps of one forward pass, one value per input pixel.

    Attributes:
        descriptors: (B, D, H, W), unit L2 norm along D.
        reliability: (B, 1, H, W), 0 to 1.
        repeatability: (B, 1, H, W), 0 to 1.
    """

    descriptors: Tensor
    reliability: Tensor
    repeatability: Tensor


class FeatureNetwork(nn.Module):
    """A feed-forward backbone that gives features.

    Attributes:
        family: the extractor that these features are for, a name of
            extractors.registry.
        ops: the backbone; image (B, 3, H, W) -> features (B, D, H', W').
        descriptor_dim: D.
        preprocessing: of the images, if the weights state which they were trained with.
    """

    family: ClassVar[str]
    preprocessing: Preprocessing | None = None

    def __init__(self, ops: nn.Sequential, descriptor_dim: int) -> None:
        super().__init__()
        self.ops = ops
        self.descriptor_dim = descriptor_dim

    @property
    def pixel_stride(self) -> int:
        """Pixels to which tile borders must be aligned."""
        return receptive_field(self.ops)[1]

    @property
    def halo(self) -> int:
        """Pixels around an output that can change it, a multiple of the stride."""
        return receptive_field(self.ops)[0]


class DenseNetwork(FeatureNetwork):
    """A feed-forward backbone with two confidence heads on its squared output.

    Revaud et al., "R2D2: Repeatable and Reliable Detector and Descriptor", NeurIPS
    2019, section 3.1 and figure 2: the descriptor is the normalised output, and each
    confidence is a 1x1 convolution of the element-wise square of that output.

    Tensors are named as in the published checkpoints: ``ops.<i>``, ``clf``, ``sal``.

    Attributes:
        ops: the backbone; image (B, 3, H, W) -> features (B, D, H', W'), where H' and
            W' are H and W cut to a multiple of ``pixel_stride``.
        clf: reliability head, two logits of which the second means reliable.
        sal: repeatability head.
        descriptor_dim: D.
    """

    family = "r2d2"

    def __init__(self, ops: nn.Sequential, descriptor_dim: int) -> None:
        super().__init__(ops, descriptor_dim)
        self.clf = nn.Conv2d(descriptor_dim, 2, kernel_size=1)
        self.sal = nn.Conv2d(descriptor_dim, 1, kernel_size=1)

    def forward(self, image: Tensor) -> DenseFeatures:
        """Compute the maps of a batch.

        Under autocast the backbone and the descriptors have the lower precision, both
        confidences float32: in bfloat16 neighbours on a peak are equal.

        Args:
            image: (B, 3, H, W) RGB, normalised by the ImageNet mean and deviation.
        """
        features = self.ops(image)
        with torch.autocast(image.device.type, enabled=False):
            squared = at_least_float32(features) ** 2
            return DenseFeatures(
                descriptors=F.normalize(features, dim=1),
                reliability=F.softmax(self.clf(squared), dim=1)[:, 1:2],
                repeatability=repeatability_from_logit(self.sal(squared)),
            )


def at_least_float32(values: Tensor) -> Tensor:
    """The values, in float32 where they have less precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def repeatability_from_logit(logit: Tensor) -> Tensor:
    """Map a logit to 0..1 by s / (1 + s) with s = softplus(logit)."""
    positive = F.softplus(logit)
    return positive / (1 + positive)


def receptive_field(ops: nn.Sequential) -> tuple[int, int]:
    """How far the layers of a backbone see, and how coarse they get.

    Returns:
        halo: pixels around an output that can change it, a multiple of the stride.
        stride: pixels to which the borders of a part must be aligned.
    """
    halo, stride, coarsest = 0, 1, 1
    for op in ops:
        if isinstance(op, nn.Conv2d):
            halo += stride * (op.dilation[0] * (op.kernel_size[0] - 1) // 2)
        elif isinstance(op, (nn.MaxPool2d, nn.AvgPool2d)):
            halo += stride * (int(op.kernel_size) - 1)  # type: ignore[arg-type]
            stride *= int(op.stride)  # type: ignore[arg-type]
            coarsest = max(coarsest, stride)
        elif isinstance(op, nn.Upsample):
            halo += stride
            stride //= int(op.scale_factor)  # type: ignore[arg-type]
    return -(-halo // coarsest) * coarsest, coarsest
