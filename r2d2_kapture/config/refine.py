"""Settings of sub-pixel refinement."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import Checked, bounded


@dataclass(frozen=True, kw_only=True)
class RefineConfig(Checked):
    """Settings of the sub-pixel registration of keypoints.

    Lengths are in samples of the patches, or in pixels of the pyramid level that a
    keypoint was found at.

    Attributes:
        patch_radius: samples of a patch on either side of the keypoint.
        layers: resolutions of a patch: that of the image; two samples in a pixel of the
            level, or half of the first if that is coarser; and half of the one before.
            Registration starts with the coarsest.
        max_step: greatest distance that a keypoint moves, in pixels of its level.
        prior: standard deviation of detected keypoints, in pixels of their level: a
            patch that does not determine its place stays there.
        shape_prior: standard deviation of the entries of the local affinity, relative
            to the frame that is given.
        min_similarity: least normalised cross-correlation with the reference patch.
        max_return: greatest distance between registration forth and back, in samples.
        max_iterations: of a layer.
    """

    patch_radius: int = bounded(8, at_least=2, at_most=32)
    layers: int = bounded(2, at_least=1, at_most=4)
    max_step: float = bounded(1.5, above=0)
    prior: float = bounded(0.5, above=0)
    shape_prior: float = bounded(0.1, above=0)
    min_similarity: float = bounded(0.7, at_least=-1, at_most=1)
    max_return: float = bounded(0.5, above=0)
    max_iterations: int = bounded(6, at_least=1)
