"""The extractor ``sift``, by pycolmap: no network, on the CPU.

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004; RootSIFT:
Arandjelovic and Zisserman, "Three Things Everyone Should Know to Improve Object
Retrieval", CVPR 2012. A keypoint with two orientations is two keypoints.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pycolmap
import torch

from r2d2_kapture.config.extract import SiftConfig
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.core.extraction import Found, Image, WeightsKind, WholeExtractor
from r2d2_kapture.core.runtime import Runtime
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.features.reading import PATCH_SIGMAS

EVERY = 2**31 - 1
"""More keypoints than any image has: COLMAP cuts whole scales, we cut single ones."""


class SiftExtractor(WholeExtractor):
    """COLMAP's SIFT: the largest keypoints first, since it keeps no responses."""

    settings_class: ClassVar[type] = SiftConfig
    needs: ClassVar[WeightsKind] = "none"
    descriptor_dim = 128
    descriptor_type = "uint8"

    def __init__(self, settings: SiftConfig, weights: None, runtime: Runtime) -> None:
        cpu = dataclasses.replace(runtime, device=torch.device("cpu"), batch_size=1)
        super().__init__(settings, weights, cpu)
        normalization = pycolmap.Normalization
        options = pycolmap.FeatureExtractionOptions(
            use_gpu=False,
            num_threads=1,
            sift=pycolmap.SiftExtractionOptions(
                max_num_features=EVERY,
                first_octave=settings.first_octave,
                peak_threshold=settings.peak_threshold,
                edge_threshold=settings.edge_threshold,
                upright=settings.upright,
                normalization=(
                    normalization.L1_ROOT if settings.root else normalization.L2
                ),
            ),
        )
        with quiet_pycolmap():
            self._sift = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)

    def find(self, image: Image) -> Found:
        """Keypoints; scores are scales."""
        bitmap = pycolmap.Bitmap.from_array(image).clone_as_grey()
        rows, found = self._sift.extract(bitmap)
        xy = np.array([(row.x, row.y) for row in rows]).reshape(-1, 2)
        sigmas = np.array([row.compute_scale() for row in rows], np.float32)
        return Found(
            xy=torch.from_numpy(kapture_from_colmap(xy)),
            sides=torch.from_numpy(PATCH_SIGMAS * sigmas),
            scores=torch.from_numpy(sigmas),
            descriptors=torch.from_numpy(found.data.copy()),
        )
