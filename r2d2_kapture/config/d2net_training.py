"""Settings of D2-Net's training."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require, require_choice
from r2d2_kapture.config.extract import Preprocessing


@dataclass(frozen=True, kw_only=True)
class D2NetTrainingConfig:
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

    margin: float = 1.0
    safe_radius: int = 4
    least_correspondences: int = 128
    trained_layers: int = 3
    preprocessing: Preprocessing = "caffe"

    def __post_init__(self) -> None:
        require_choice("--preprocessing", self.preprocessing, Preprocessing)
        require(
            0 < self.margin < float("inf"),
            f"--margin: found {self.margin}, expected more than 0",
        )
        for name, least in (
            ("safe_radius", 0),
            ("least_correspondences", 1),
            ("trained_layers", 0),
        ):
            value = getattr(self, name)
            require(
                value >= least,
                f"--{name.replace('_', '-')}: found {value}, expected {least} or more",
            )
