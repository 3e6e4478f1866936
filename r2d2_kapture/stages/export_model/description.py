"""What an exported model says of itself."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import r2d2_kapture
from r2d2_kapture.models.checkpoints import Checkpoint

NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial|research only", re.IGNORECASE)
UNKNOWN = "not stated"


def describe(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of an exported model.

    Args:
        checkpoint: that it is made of.
        settings: of the export.
    """
    layout = "(H, W, 3)" if settings["form"] == "extractor" else "(B, H, W, 3)"
    return {
        "model": checkpoint.name,
        "architecture": dataclasses.asdict(checkpoint.architecture),
        "sha256": checkpoint.sha256,
        "license": checkpoint.license or UNKNOWN,
        "made_by": f"r2d2_kapture {r2d2_kapture.__version__}",
        "image": f"{layout} RGB, 0 to 255, not normalised",
        "pixel_origin": "(0, 0) is the centre of the top-left pixel",
        "settings": dict(settings),
    }


def as_texts(description: Mapping[str, Any]) -> dict[str, str]:
    """The metadata as texts by name; what is no text becomes JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in description.items()
    }


def licence_warnings(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What limits the use of the weights, or is not known of it."""
    licence = checkpoint.license
    if licence is None:
        return (
            f"{checkpoint.name} does not state the licence of its weights: ask their "
            "authors before you pass the model on",
        )
    if NON_COMMERCIAL.search(licence):
        return (
            f"the weights of {checkpoint.name} are under {licence}, which the exported "
            "model is bound by: no commercial use",
        )
    return ()
