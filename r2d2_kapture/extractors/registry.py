"""The extractors by name: one line each, imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.extract import AUTO, ExtractConfig
from r2d2_kapture.core.engine import Runtime, resolve_runtime
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.upload import Masks
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.types import FileStyle, LocalFeatures

EXTRACTORS = {
    "r2d2": "r2d2_kapture.extractors.r2d2:R2D2Extractor",
    "d2net": "r2d2_kapture.extractors.d2net:D2NetExtractor",
}


class Extractor(Protocol):
    """Turns images into LocalFeatures.

    Attributes:
        name: a key of EXTRACTORS.
        file_style: of files of one image's features.
        runtime: what the network runs on.
    """

    name: str
    file_style: FileStyle
    runtime: Runtime

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the features, besides weights and precision."""

    def __call__(
        self,
        image: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> LocalFeatures:
        """Extract one image: (H, W, 3) uint8 RGB, pixels as stored.

        A mask, (H, W) bool, says which pixels may hold keypoints: those whose nearest
        pixel it leaves out are none, before the best are chosen.
        """

    def extract_batch(
        self, images: Sequence[npt.NDArray[np.uint8]]
    ) -> list[LocalFeatures]:
        """Extract (H, W, 3) uint8 RGB images of equal size."""

    def upload(self, images: Sequence[npt.NDArray[np.uint8]], masks: Masks = ()) -> Any:
        """Bring (H, W, 3) uint8 RGB images of equal size to the device.

        Masks are those of the images, or none at all.
        """

    def extract_uploaded(self, upload: Any) -> list[LocalFeatures]:
        """Extract the images of an upload."""

    def confidence_maps(
        self, image: npt.NDArray[np.uint8]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Maps of an (H, W, 3) uint8 RGB image by name, (h, w) float32, 0 to 1."""


def build_extractor(
    name: str, network: FeatureNetwork, config: ExtractConfig
) -> Extractor:
    """Make an extractor by its registered name, or the one of the network.

    Raises:
        ConfigError: the name is not registered or not for this network, or the device
            is not there.
    """
    if name not in (AUTO, *EXTRACTORS):
        raise ConfigError(
            f"--extractor {name}: expected one of {', '.join((*EXTRACTORS, AUTO))}"
        )
    if name not in (AUTO, network.family):
        raise ConfigError(
            f"--extractor {name}: the checkpoint holds {type(network).__name__}, "
            f"expected --extractor {network.family}, or a --model of {name}"
        )
    module, _, class_name = EXTRACTORS[network.family].partition(":")
    extractor_class = getattr(importlib.import_module(module), class_name)
    extractor: Extractor = extractor_class.from_config(
        network, config, resolve_runtime(config.engine)
    )
    return extractor
