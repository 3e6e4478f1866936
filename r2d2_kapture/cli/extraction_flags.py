"""Flags shared by the commands that extract features."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    add_settings,
    dump_settings,
    resolve_presets,
    settings_from,
    show,
)
from r2d2_kapture.cli.parser import CommandParser, value_name
from r2d2_kapture.cli.repeated_flags import take_flag
from r2d2_kapture.config.extract import (
    AUTO,
    DEFAULT_MODEL,
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    ExtractorName,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.config.presets import read_preset
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.settings import names_of, refuse_unknown
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.models.files import bundled_models, resolve_model

if TYPE_CHECKING:
    from r2d2_kapture.models.checkpoints import Checkpoint

PRESETS = "extract"
SETTINGS_NAME = "extract_config.yaml"
FAMILY_SETTINGS: dict[str, tuple[type, ...]] = {
    "r2d2": (PyramidConfig, SelectionConfig),
    "d2net": (D2NetConfig,),
}
"""Settings of only one family of networks."""

EXTRACTION_SETTINGS = (*itertools.chain(*FAMILY_SETTINGS.values()), EngineConfig)
TITLES: dict[str, tuple[type, str | None]] = {
    "scales searched by R2D2 and Fast-R2D2": (PyramidConfig, "r2d2"),
    "keypoints of R2D2 and Fast-R2D2": (SelectionConfig, "r2d2"),
    "D2-Net only": (D2NetConfig, "d2net"),
    "computation": (EngineConfig, None),
}
"""Settings by the title of their flags, and their family of networks."""


def add_extraction_flags(parser: CommandParser, taken: Collection[str] = ()) -> None:
    """Add the model, the settings of extraction and those of the run.

    Args:
        parser: to add to.
        taken: settings to omit, because the command has its own flag of that name.
    """
    parser.group("features").add_argument(
        "--model",
        type=str,
        metavar="MODEL",
        default=DEFAULT_MODEL,
        help="checkpoint: path of a published .pt (R2D2) or .pth (D2-Net, VGG16) or of "
        "a .safetensors file, or the name of a bundled model",
    )
    parser.group("features").add_argument(
        "--list-models", action="store_true", help="list the bundled models and stop"
    )
    add_preset_flag(parser)
    add_extraction_settings(parser, taken)


def add_extraction_settings(
    parser: CommandParser,
    taken: Collection[str] = (),
    section: str = "",
    topic: str | None = None,
) -> None:
    """Add the settings of extraction, grouped by family of networks.

    Args:
        parser: to add to.
        taken: settings to omit, because the command has its own flag of that name.
        section: prefix of the flags, such as ``extract.`` in ``--extract.top-k``.
        topic: of the help that shows them, except for those of D2-Net.
    """
    for title, (settings, family) in TITLES.items():
        shown_by = family if family == "d2net" else topic or family
        add_settings(parser, settings, taken, section, group=title, topic=shown_by)


def add_preset_flag(parser: CommandParser) -> None:
    """Add the name of a preset of extraction."""
    parser.group("features").add_argument(
        "--preset",
        type=str | None,
        metavar="NAME",
        help="settings of extraction by name: fast (half the scales, 2000 keypoints), "
        "full_resolution (every scale, 20000), aachen, or paper (the published "
        "extractor); or a YAML file of them; flags override it",
    )


def resolve_extraction_preset(
    arguments: Sequence[str], folder: str = PRESETS, section: str = ""
) -> list[str]:
    """Put ``--config`` and then ``--preset`` first, see resolve_presets.

    Args:
        arguments: of the command line.
        folder: of configs/ that holds the presets of ``--config``.
        section: of the settings of extraction among the command's; none by default.

    Raises:
        ConfigError: neither a file nor a preset, or settings of something else.
    """
    names, others = take_flag(arguments, "--preset")
    known = list(itertools.chain(*map(names_of, EXTRACTION_SETTINGS)))
    values: dict[str, Any] = {}
    for name in names:
        values |= read_preset(name, PRESETS, "--preset")
        try:
            refuse_unknown(values, known)
        except ConfigError as error:
            raise ConfigError(f"--preset {name}: {error}") from error
    resolved = resolve_presets(others, folder)
    if values:
        configs = sum(text.startswith("--config=") for text in resolved)
        text = json.dumps({section: values} if section else values)
        resolved[configs:configs] = [f"--config={text}", f"--preset={names[-1]}"]
    return resolved


def parse_extraction(
    parser: CommandParser, arguments: Sequence[str]
) -> Namespace | None:
    """Parse flags and presets; None where the models were only to be listed."""
    namespace = parser.parse_args(resolve_extraction_preset(arguments))
    if namespace.list_models:
        show(list_models())
        return None
    return namespace


def save_settings(namespace: Namespace, folder: Path) -> None:
    """Write the resolved settings next to the output, as YAML for --config."""
    text = dump_settings(namespace, EXTRACTION_SETTINGS)
    write_text_atomic(folder / SETTINGS_NAME, text)


def add_run_flags(parser: CommandParser) -> None:
    """Add the kind of features, and what changes how a run behaves."""
    parser.group("features").add_argument(
        "--extractor",
        type=ExtractorName,
        metavar=value_name(ExtractorName),
        default=AUTO,
        help="which kind of features, r2d2 or d2net; auto is that of the model",
    )
    parser.group("run").add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=2,
        help="threads that decode images ahead of the network",
    )
    parser.group("run").add_argument(
        "--force",
        action="store_true",
        help="redo existing outputs; without it, finished images are skipped unless "
        "their files have changed",
    )
    parser.group("run").add_argument(
        "--strict", action="store_true", help="stop at the first image that fails"
    )
    parser.group("run").add_argument(
        "--quiet", action="store_true", help="show no progress"
    )


def add_exclude_flag(parser: CommandParser) -> None:
    """Add the patterns of what to leave out of folders."""
    parser.group("inputs").add_argument(
        "--exclude",
        nargs="+",
        type=str,
        metavar="PATTERN",
        default=[],
        help="patterns of images to leave out, such as 'masks' or 'depth/**/*.png', "
        "relative to the folder of images; one without a slash fits at any depth, and "
        "a folder takes along what is in it",
    )


def add_masks_flag(parser: CommandParser) -> None:
    """Add the folder of masks."""
    parser.group("inputs").add_argument(
        "--masks",
        type=Path | None,
        metavar="DIR",
        help="folder of masks, IMAGE.png (a.jpg.png, as COLMAP has it) or a.png, of "
        "the size of the image as stored: no keypoints where they are black",
    )


def extract_config(namespace: Namespace, taken: Collection[str] = ()) -> ExtractConfig:
    """Settings of extraction from the flags.

    Args:
        namespace: the flags.
        taken: as for add_extraction_flags.

    Raises:
        ConfigError: a setting is out of its range.
    """
    values = _without(namespace, taken)
    return ExtractConfig(
        pyramid=settings_from(values, PyramidConfig),
        selection=settings_from(values, SelectionConfig),
        d2net=settings_from(values, D2NetConfig),
        engine=settings_from(values, EngineConfig),
    )


def _without(namespace: Namespace, taken: Collection[str]) -> Namespace:
    """The flags, with all that are not settings of extraction at default."""
    values = namespace.clone()
    for settings in EXTRACTION_SETTINGS:
        for field in dataclasses.fields(settings):
            if field.name in taken:
                values[field.name] = field.default
    return values


def changed_settings(namespace: Namespace, family: str, section: str = "") -> list[str]:
    """The flags of settings of a family of networks that are not at default."""
    return [
        _flag(section, field.name, namespace[field.name])
        for settings in FAMILY_SETTINGS[family]
        for field in dataclasses.fields(settings)
        if namespace[field.name] != field.default
    ]


def refuse_settings_of_others(
    namespace: Namespace, family: str, section: str = ""
) -> None:
    """Refuse settings of another family of networks.

    Args:
        namespace: the flags.
        family: of the network.
        section: prefix of the flags, such as ``extract.`` in ``--extract.top-k``.

    Raises:
        ConfigError: such a setting is not at default.
    """
    for other in FAMILY_SETTINGS:
        changed = changed_settings(namespace, other, section)
        if other != family and changed:
            raise ConfigError(
                f"{', '.join(changed)}: found for a model of {family}, expected only "
                f"for those of {other}; remove it, or choose another --model"
            )


def _flag(section: str, name: str, value: object) -> str:
    """The flag of a setting; a switch is turned off by ``--no-NAME``."""
    return f"--{section}{'no-' * (value is False)}{name.replace('_', '-')}"


def run_options(namespace: Namespace) -> RunOptions:
    """Options of the run from the flags."""
    if namespace.workers < 1:
        raise ConfigError(f"--workers: found {namespace.workers}, expected 1 or more")
    return RunOptions(
        workers=namespace.workers,
        force=namespace.force,
        strict=namespace.strict,
        progress=False if namespace.quiet else None,
    )


def chosen_checkpoint(namespace: Namespace, taken: Collection[str] = ()) -> Checkpoint:
    """Load the requested checkpoint.

    Args:
        namespace: the flags.
        taken: as for add_extraction_flags.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: a setting of another family of networks is not at default.
    """
    resolve_model(namespace.model)
    from r2d2_kapture.models.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(namespace.model)
    family = checkpoint.network.family
    refuse_settings_of_others(_without(namespace, taken), family)
    return checkpoint


def list_models() -> str:
    """One line for each bundled model."""
    from r2d2_kapture.models.checkpoints import load_checkpoint

    lines = []
    for name in bundled_models():
        checkpoint = load_checkpoint(name)
        architecture = checkpoint.architecture
        lines.append(
            f"{name}: {architecture.name}, width {architecture.width}, "
            f"{architecture.descriptor_dim}-d, licence "
            f"{checkpoint.metadata.get('license', 'unknown')}"
            f"{' (default)' if name == DEFAULT_MODEL else ''}"
        )
    return "\n".join(lines)
