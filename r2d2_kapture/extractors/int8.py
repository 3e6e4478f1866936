"""The int8 weights of a network: bundled, kept from an earlier run, or made now."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from r2d2_kapture.core.calibration import calibrate
from r2d2_kapture.core.dead_leaves import draw_leaves
from r2d2_kapture.core.graph import folded_layers
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.errors import CheckpointError, OutputError
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.models.int8 import (
    RECIPE,
    SUFFIX,
    Quantization,
    bundled_quantization,
    fingerprint,
    read_quantization,
    serialize_quantization,
)
from r2d2_kapture.models.network import DenseNetwork

PICTURES, PICTURE_SIDE = 8, 192
"""Number and side in pixels of the pictures that weights are calibrated on."""


def int8_weights(network: DenseNetwork) -> tuple[Quantization, tuple[str, ...]]:
    """Find the int8 weights of a network, or make them and keep them for later runs.

    They are made from drawn pictures, so they depend on the weights only, and are kept
    in ``~/.cache/r2d2_kapture/int8`` (``$XDG_CACHE_HOME``) by a checksum of these.

    Args:
        network: in evaluation mode, on the CPU.

    Returns:
        The weights; and warnings, one where they could not be kept.
    """
    made_for = fingerprint(network.ops)
    bundled = bundled_quantization(made_for)
    if bundled is not None:
        return bundled, ()
    path = _cache_folder() / f"{made_for}-{RECIPE}{SUFFIX}"
    try:
        return read_quantization(path, made_for), ()
    except CheckpointError:  # not made yet, or damaged
        made = calibrated(network)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(serialize_quantization(made, made_for))
    except OutputError as error:
        return made, (
            f"int8 weights were made for this run only: {error}; $XDG_CACHE_HOME names "
            "the folder to use instead of ~/.cache",
        )
    return made, ()


def calibrated(network: DenseNetwork) -> Quantization:
    """Make int8 weights, from pictures of dead leaves."""
    pictures = torch.from_numpy(draw_leaves(PICTURES, PICTURE_SIDE))
    return calibrate(folded_layers(network.ops), normalize_rgb(pictures))


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the specification has relative paths ignored
    root = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return Path(root) / "r2d2_kapture" / "int8"
