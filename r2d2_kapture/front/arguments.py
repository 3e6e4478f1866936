"""Keyword arguments of the functions of the Python interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.presets import read_preset
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.settings import flat_names, make_settings, names_of
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from r2d2_kapture.models.files import Weights
from r2d2_kapture.types import Report

Run = Callable[..., Report]
PathLike = str | Path


def extraction(
    extractor: str,
    model: PathLike | None,
    preset: PathLike | None,
    settings: Mapping[str, Any],
) -> tuple[ExtractConfig, Weights | None]:
    """Settings, those of a preset included, and weights; see load_extractor."""
    values = {} if preset is None else read_preset(str(preset), "extract")
    name, weights = load_weights(extractor, model)
    values = {**values, **settings, "extractor": name}
    return make_settings(ExtractConfig, values), weights


def make_extractor(
    extractor: str,
    model: PathLike | None,
    preset: PathLike | None,
    settings: Mapping[str, Any],
) -> Extractor:
    """The extractor that these make; see load_extractor."""
    return build_extractor(*extraction(extractor, model, preset, settings))


def sort_arguments(
    run: Run, arguments: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split arguments into inputs of a stage, with the run options, and settings."""
    parameters = inspect.signature(run).parameters
    inputs: dict[str, Any] = {}
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in parameters:
            annotation = str(parameters[name].annotation)
            paths = as_paths(value) if "Path" in annotation else value
            inputs[name] = one_or_more(paths) if "[Path]" in annotation else paths
        elif name in names_of(RunOptions):
            options[name] = value
        else:
            settings[name] = value
    if "options" in parameters:
        inputs.setdefault("options", RunOptions(**options))
    else:
        inputs |= options
    return inputs, settings


def makes_slices(run: Run) -> bool:
    """Whether a stage can be divided into slices."""
    return "slice" in inspect.signature(run).parameters


def take_settings(kind: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Remove the fields of a dataclass from settings, and return them."""
    names = flat_names(kind, settings)
    return {name: settings.pop(name) for name in names if name in settings}


def one_or_more(value: Any) -> Any:
    """A list of the one path that is given, or the paths that are."""
    return [Path(value)] if isinstance(value, (str, Path)) else value


def as_paths(value: Any) -> Any:
    """Convert strings to paths, in lists and mappings too."""
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, Mapping):
        return {name: as_paths(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_paths(item) for item in value]
    return value
