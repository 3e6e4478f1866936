"""Settings of D2-Net's training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r2d2_kapture.config.checks import Checked, bounded
from r2d2_kapture.config.extract import Preprocessing


@dataclass(frozen=True, kw_only=True)
class D2NetTrainingConfig(Checked):
    """Settings of D2-Net's loss (Dusmanu et al., CVPR 2019, section 4).

    Attributes:
        margin: M, by which the squared distance of the descriptors of a wrong match
            should exceed that of the right one.
        safe_radius: K, cells of the feature map, along each axis, from the true
            position up to which no match counts as wrong.
        least_correspondences: cells with a known true position that a pair needs to
            contribute.
        trained_layers: number of last convolutions that are trained; the others keep
            the weights of --start-from; 0 trains all.
        preprocessing: of the images, as the weights of --start-from expect it:
            ``caffe`` is BGR of 0..255 less the mean colour, ``torch`` is RGB by the
            mean and deviation of ImageNet.
    """

    margin: float = bounded(1.0, above=0, below=math.inf)
    safe_radius: int = bounded(4, at_least=0)
    least_correspondences: int = bounded(128, at_least=1)
    trained_layers: int = bounded(3, at_least=0)
    preprocessing: Preprocessing = "caffe"
