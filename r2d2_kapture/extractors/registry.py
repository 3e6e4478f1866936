"""Extractors from their settings and weights, by name or by the checkpoint at hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from r2d2_kapture.config.extract import (
    AUTO,
    DEFAULT_MODEL,
    EXTRACTORS,
    ExtractConfig,
)
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.core.runtime import resolve_runtime
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.models.files import Weights, resolve_model, sha256_of
from r2d2_kapture.models.network import FeatureNetwork


def load_weights(
    extractor: str = AUTO, model: str | Path | None = None
) -> tuple[str, Weights | None]:
    """Load the weights of an extractor.

    Args:
        extractor: its name; by default the one for the checkpoint.
        model: path of the weights, or the name of a bundled model; None takes the
            default one, or none where the extractor needs none.

    Returns:
        Name of the extractor, and its weights.

    Raises:
        CheckpointError: they cannot be loaded.
        ConfigError: no such extractor, weights for one without, or none for one with.
    """
    needs = "checkpoint" if extractor == AUTO else EXTRACTORS.load(extractor).needs
    if needs == "checkpoint":
        checkpoint = load_checkpoint(DEFAULT_MODEL if model is None else model)
        return checkpoint.network.family if extractor == AUTO else extractor, checkpoint
    if needs == "none" and model is not None:
        raise ConfigError(
            f"--model {model}: found for --extractor {extractor}, which has no "
            "weights; remove it"
        )
    if needs == "file" and model is None:
        raise ConfigError(
            f"--extractor {extractor}: found no --model, expected the file of its "
            "weights"
        )
    if model is None:
        return extractor, None
    path = resolve_model(str(model))
    return extractor, Weights(name=path.stem, path=path, sha256=sha256_of(path))


def build_extractor(
    config: ExtractConfig, weights: Weights | FeatureNetwork | None = None
) -> Extractor:
    """Make the extractor that settings belong to.

    Args:
        config: of the extraction.
        weights: from ``load_weights``, or a network in memory.

    Raises:
        ConfigError: the weights are of another extractor, the device is not there, or
            it computes in float32 alone.
    """
    settings: Any = config.extractor
    found: type[Extractor] = EXTRACTORS.load(settings.extractor)
    if found.only_float32 and config.precision not in ("auto", "fp32"):
        raise ConfigError(
            f"--precision {config.precision}: found for --extractor "
            f"{settings.extractor}, expected fp32, in which it computes"
        )
    if config.precision == "int8" and not found.runs_int8:
        raise ConfigError(
            f"--precision int8: found for --extractor {settings.extractor}, expected "
            "auto, fp32, bf16 or fp16; R2D2 and Fast-R2D2 have int8"
        )
    if config.engine not in ("auto", *found.engines):
        raise ConfigError(
            f"--engine {config.engine}: found for --extractor {settings.extractor}, "
            f"expected auto or {' or '.join(found.engines)}"
        )
    made = found.open(settings, weights, resolve_runtime(config))
    made.remake = partial(build_extractor, config, weights)
    return made
