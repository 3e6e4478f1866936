"""The architectures that checkpoints may name: one line each."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.network import FeatureNetwork

ARCHITECTURES = {
    "r2d2": "r2d2_kapture.models.r2d2:R2D2",
    "fast_r2d2": "r2d2_kapture.models.r2d2:FastR2D2",
    "d2net": "r2d2_kapture.models.d2net:D2Net",
}

PUBLISHED_NAMES = {
    "Quad_L2Net_ConfCFS": "r2d2",
    "Fast_Quad_L2Net_ConfCFS": "fast_r2d2",
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Which network a checkpoint holds.

    Attributes:
        name: a key of ARCHITECTURES.
        width: width multiplier of its layers; the default is that of R2D2, D2-Net has
            64.
        descriptor_dim: length of its descriptors; D2-Net has 512.
    """

    name: str
    width: int = 4
    descriptor_dim: int = 128


def build_network(architecture: Architecture) -> FeatureNetwork:
    """Make the untrained network of an architecture.

    Raises:
        CheckpointError: the name is not registered or a size is not sensible.
    """
    if architecture.name not in ARCHITECTURES:
        raise CheckpointError(
            f"unknown architecture '{architecture.name}', "
            f"expected one of {', '.join(sorted(ARCHITECTURES))}"
        )
    for field in ("width", "descriptor_dim"):
        value = getattr(architecture, field)
        if not 1 <= value <= 1024:
            raise CheckpointError(f"architecture {field} {value}, expected 1 to 1024")
    module, _, class_name = ARCHITECTURES[architecture.name].partition(":")
    network_class = getattr(importlib.import_module(module), class_name)
    network: FeatureNetwork = network_class(
        width=architecture.width, descriptor_dim=architecture.descriptor_dim
    )
    return network


def parse_published_name(text: str) -> Architecture:
    """Read an architecture string of a published checkpoint without evaluating it.

    Args:
        text: for example ``Quad_L2Net_ConfCFS()`` or ``Quad_L2Net_ConfCFS(mchan=6)``.

    Raises:
        CheckpointError: the string names nothing of PUBLISHED_NAMES.
    """
    match = re.fullmatch(
        r"\s*(\w+)\(\s*(?:mchan\s*=\s*(\d{1,4}))?\s*,?"
        r"\s*(?:dim\s*=\s*(\d{1,4}))?\s*\)\s*",
        text,
    )
    if match is None or match[1] not in PUBLISHED_NAMES:
        raise CheckpointError(
            f"unknown architecture '{text[:80]}', expected one of "
            + ", ".join(f"{name}()" for name in PUBLISHED_NAMES)
        )
    return Architecture(
        name=PUBLISHED_NAMES[match[1]],
        width=int(match[2] or 4),
        descriptor_dim=int(match[3] or 128),
    )
