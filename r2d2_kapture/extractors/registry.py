"""The extractors by name: one line each, imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.core.engine import Runtime, resolve_runtime
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.types import LocalFeatures

EXTRACTORS = {"r2d2": "r2d2_kapture.extractors.r2d2:R2D2Extractor"}


class Extractor(Protocol):
    """Turns images into LocalFeatures."""

    runtime: Runtime

    def extract_batch(
        self, images: Sequence[npt.NDArray[np.uint8]]
    ) -> list[LocalFeatures]:
        """Extract (H, W, 3) uint8 RGB images of equal size."""

    def upload(self, images: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """Bring (H, W, 3) uint8 RGB images of equal size to the device."""

    def extract_uploaded(self, upload: Any) -> list[LocalFeatures]:
        """Extract the images of an upload."""


def build_extractor(
    name: str, network: DenseNetwork, config: ExtractConfig
) -> Extractor:
    """Make an extractor by its registered name.

    Raises:
        ConfigError: the name is not registered, or the device is not there.
    """
    if name not in EXTRACTORS:
        raise ConfigError(
            f"--extractor {name}: expected one of {', '.join(sorted(EXTRACTORS))}"
        )
    module, _, class_name = EXTRACTORS[name].partition(":")
    extractor_class = getattr(importlib.import_module(module), class_name)
    extractor: Extractor = extractor_class(
        network, config.pyramid, config.selection, resolve_runtime(config.engine)
    )
    return extractor
