"""Flags that the commands that extract features share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from r2d2_kapture.cli.common import (
    add_settings,
    dump_settings,
    resolve_presets,
    settings_from,
)
from r2d2_kapture.config.extract import (
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.atomic import write_text_atomic
from r2d2_kapture.models.checkpoints import (
    Checkpoint,
    bundled_models,
    load_checkpoint,
)

PRESETS = "extract"
SETTINGS_NAME = "extract_config.yaml"
EXTRACTION_SETTINGS = (PyramidConfig, SelectionConfig, EngineConfig)


def add_extraction_flags(parser: ArgumentParser) -> None:
    """Add the model, the settings of extraction and those of the run."""
    parser.add_argument(
        "--model",
        type=str | None,
        default=next(iter(bundled_models()), None),
        help="checkpoint: path of a published .pt or of a .safetensors file, or the "
        "name of a bundled model",
    )
    parser.add_argument(
        "--list-models", action="store_true", help="list the bundled models and stop"
    )
    for settings in EXTRACTION_SETTINGS:
        add_settings(parser, settings)


def parse_extraction(
    parser: ArgumentParser, arguments: Sequence[str]
) -> Namespace | None:
    """Parse flags and presets; None where the models were only to be listed."""
    namespace = parser.parse_args(resolve_presets(arguments, PRESETS))
    if namespace.list_models:
        print(list_models())
        return None
    return namespace


def save_settings(namespace: Namespace, folder: Path) -> None:
    """Keep the resolved settings beside the output, as YAML that --config takes."""
    text = dump_settings(namespace, EXTRACTION_SETTINGS)
    write_text_atomic(folder / SETTINGS_NAME, text)


def add_run_flags(parser: ArgumentParser) -> None:
    """Add the kind of features, and what changes how a run behaves."""
    parser.add_argument(
        "--extractor", type=str, default="r2d2", help="which kind of features"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="threads that decode images ahead of the network",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="redo what is there; without it, finished images are skipped",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first image that fails"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar, even on a terminal"
    )


def extract_config(namespace: Namespace) -> ExtractConfig:
    """The settings of extraction that the flags hold."""
    return ExtractConfig(
        pyramid=settings_from(namespace, PyramidConfig),
        selection=settings_from(namespace, SelectionConfig),
        engine=settings_from(namespace, EngineConfig),
    )


def run_options(namespace: Namespace) -> RunOptions:
    """The options of the run that the flags hold."""
    if namespace.workers < 1:
        raise ConfigError(f"--workers: found {namespace.workers}, expected 1 or more")
    return RunOptions(
        workers=namespace.workers,
        force=namespace.force,
        strict=namespace.strict,
        progress=False if namespace.quiet else None,
    )


def chosen_checkpoint(namespace: Namespace) -> Checkpoint:
    """Load the checkpoint asked for."""
    if namespace.model is None:
        raise ConfigError(
            "--model: none given and no model is bundled yet; give the path of a "
            "checkpoint, for example r2d2_WASF_N16.pt"
        )
    return load_checkpoint(namespace.model)


def list_models() -> str:
    """One line a bundled model."""
    lines = []
    for name in bundled_models():
        checkpoint = load_checkpoint(name)
        architecture = checkpoint.architecture
        lines.append(
            f"{name}: {architecture.name}, width {architecture.width}, "
            f"{architecture.descriptor_dim}-d, licence "
            f"{checkpoint.metadata.get('license', 'unknown')}"
        )
    return "\n".join(lines) or "no model is bundled yet: give --model PATH"
