"""Flags shared by the commands that extract features."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    add_settings,
    dump_values,
    resolve_presets,
    settings_from,
    show,
)
from r2d2_kapture.cli.door_flags import chosen_settings, typed_settings
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.repeated_flags import take_flag
from r2d2_kapture.cli.stage_flags import add_stage_flags
from r2d2_kapture.config.extract import (
    AUTO,
    DEFAULT_MODEL,
    EXTRACTORS,
    AlikedConfig,
    D2NetConfig,
    DiskConfig,
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    R2D2Config,
    SelectionConfig,
    SiftConfig,
)
from r2d2_kapture.config.presets import read_preset
from r2d2_kapture.config.rotations import OFF
from r2d2_kapture.config.settings import names_of, refuse_unknown
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.models.files import Weights, bundled_models, resolve_model

if TYPE_CHECKING:
    from r2d2_kapture.core.extraction import Extractor

PRESETS = "extract"
SETTINGS_NAME = "extract_config.yaml"
FOLDER_FLAGS = ("exclude", "masks")
"""See add_folder_flags."""
PARTS: dict[type, tuple[type, ...]] = {R2D2Config: (PyramidConfig, SelectionConfig)}
"""Settings that are shown in several groups."""
TITLES: dict[type, str] = {
    PyramidConfig: "scales searched by R2D2 and Fast-R2D2",
    SelectionConfig: "keypoints of R2D2 and Fast-R2D2",
    D2NetConfig: "D2-Net only",
    SiftConfig: "SIFT only",
    AlikedConfig: "ALIKED only",
    DiskConfig: "DISK only",
}
"""Of groups of flags; others go by the name of the extractor."""


def add_extraction_flags(parser: CommandParser, taken: Collection[str] = ()) -> None:
    """Add the model, the extractor, and the settings of extraction.

    Args:
        parser: to add to.
        taken: settings to omit, because the command has its own flag of that name.
    """
    add_model_flags(parser, f"by default {DEFAULT_MODEL}, if the extractor needs any")
    parser.group("features").add_argument(
        "--list-models", action="store_true", help="list the bundled models and stop"
    )
    add_preset_flag(parser)
    add_extraction_settings(parser, taken)


def add_model_flags(parser: CommandParser, default: str) -> None:
    """Add --model and --extractor; ``default`` says what happens without a model."""
    parser.group("features").add_argument(
        "--model",
        type=str | None,
        metavar="MODEL",
        help="checkpoint: path of a published .pt (R2D2) or .pth (D2-Net, VGG16) or of "
        "a .safetensors file, or the name of a bundled model; or the weights of "
        f"--extractor; {default}",
    )
    parser.group("features").add_argument(
        "--extractor",
        type=str,
        metavar="NAME",
        default=AUTO,
        help=f"kind of features: {', '.join(EXTRACTORS.settings())}; auto is that of "
        "the model",
    )


def add_extraction_settings(
    parser: CommandParser,
    taken: Collection[str] = (),
    section: str = "",
    topic: str | None = None,
) -> None:
    """Add the settings of extraction, grouped by extractor.

    Args:
        parser: to add to.
        taken: settings to omit, because the command has its own flag of that name.
        section: prefix of the flags, such as ``extract.`` in ``--extract.top-k``.
        topic: of the help that shows them, except for those of other extractors than
            R2D2.
    """
    for name, settings in EXTRACTORS.settings().items():
        shown_by = (topic or name) if settings is R2D2Config else name
        for part in PARTS.get(settings, (settings,)):
            title = TITLES.get(part, f"{name} only")
            prefix = EXTRACTORS.prefix(name)
            own = () if prefix else taken
            add_settings(parser, part, own, section, prefix, title, shown_by)
    add_settings(parser, EngineConfig, taken, section, "", "computation", topic)


def add_preset_flag(parser: CommandParser) -> None:
    """Add the name of a preset of extraction."""
    parser.group("features").add_argument(
        "--preset",
        type=str | None,
        metavar="NAME",
        help="settings of extraction by name: fast (half the scales, 2000 keypoints), "
        "turbo (one or two, 700), full_resolution (every scale, 20000), aachen, or "
        "paper (the published extractor); or a YAML file of them; flags override it",
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
    known = [EXTRACTORS.kind, *setting_names()]
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
        kind = EXTRACTORS.kind  # whose flag has no section
        chosen = {kind: values.pop(kind)} if kind in values else {}
        text = json.dumps(chosen | ({section: values} if section else values))
        resolved[configs:configs] = [f"--config={text}", f"--preset={names[-1]}"]
    return resolved


def parse_extraction(parser: CommandParser, arguments: Sequence[str]) -> Namespace:
    """Parse flags and presets; where the models are only to be listed, stop."""
    namespace = parser.parse_args(resolve_extraction_preset(arguments))
    if namespace.list_models:
        show(list_models())
        parser.exit()
    if namespace.extractor != AUTO:
        EXTRACTORS.settings_of(namespace.extractor)
    check_settings(namespace)
    return namespace


def setting_names(extractor: str | None = None) -> list[str]:
    """Names of the flags of extraction: of one extractor, or of all."""
    chosen = EXTRACTORS.settings() if extractor is None else (extractor,)
    flags = [flag for name in chosen for flag in EXTRACTORS.flags(name)]
    return flags + names_of(EngineConfig)


def dump_extraction(namespace: Namespace, extractor: str) -> str:
    """The resolved settings of an extractor as YAML that ``--config`` takes."""
    return dump_values(namespace, setting_names(extractor))


def save_settings(namespace: Namespace, extractor: Extractor, folder: Path) -> None:
    """Write the resolved settings next to the output, as YAML for --config."""
    text = dump_extraction(namespace, extractor.name)
    if namespace.extractor != AUTO:
        text = f"extractor: {namespace.extractor}\n{text}"
    write_text_atomic(folder / SETTINGS_NAME, text)


def add_extraction_run_flags(parser: CommandParser) -> None:
    """Add what changes how a run behaves."""
    add_stage_flags(
        parser,
        "image",
        force="redo existing outputs; without it, finished images are skipped unless "
        "their files have changed",
        workers="threads that decode images ahead of the network",
        count=2,
    )


def add_folder_flags(parser: CommandParser) -> None:
    """Add the patterns of what to leave out of folders of images, and their masks."""
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
    parser.group("inputs").add_argument(
        "--masks",
        type=Path | None,
        metavar="DIR",
        help="folder of masks, IMAGE.png (a.jpg.png, as COLMAP has it) or a.png, of "
        "the size of the image as stored: no keypoints where they are black",
    )


def add_rotations_flag(parser: CommandParser, against: str) -> None:
    """Add --rotations; ``against`` is what images are turned to match."""
    parser.group("features").add_argument(
        "--rotations",
        type=str,
        metavar="TURNS",
        default=OFF.text,
        help="quarter turns in which the network sees images; keypoints stay in stored "
        "pixels: off; exif, as EXIF's orientation has it; auto, that first, else the "
        f"one in which an image matches {against}; or degrees clockwise, one for all "
        "images (90) or two to choose from (0,180)",
    )


def extraction(
    namespace: Namespace,
    model: str | None,
    extractor: str = AUTO,
    *,
    taken: Collection[str] = (),
    section: str = "",
    others: Collection[str] = (),
    preset: str | None = None,
) -> tuple[ExtractConfig, Weights | None]:
    """Settings and weights of the requested extraction.

    Args:
        namespace: the flags of the settings.
        model: weights, see load_weights.
        extractor: its name; by default the one for the model.
        taken: as for add_extraction_flags.
        section: prefix of the flags, such as ``extract.`` in ``--extract.top-k``.
        others: names of extractors whose settings may be given too.
        preset: that settings come from, if any.

    Raises:
        CheckpointError: the weights cannot be loaded.
        ConfigError: a setting is out of its range, or a setting of another extractor
            is not at default.
    """
    values = _without(namespace, taken)
    check = partial(
        chosen_settings, values, EXTRACTORS, section, others=others, preset=preset
    )
    described = f"--extractor {extractor}"
    if extractor != AUTO:
        check(extractor, described)
    if model is not None:
        resolve_model(model)
    from r2d2_kapture.extractors.registry import load_weights

    name, weights = load_weights(extractor, model)
    if extractor == AUTO:
        described = f"a model of {name}"
    settings = check(name, described)
    return (
        ExtractConfig(**vars(settings_from(values, EngineConfig)), extractor=settings),
        weights,
    )


def make_extractor(
    namespace: Namespace, taken: Collection[str] = (), others: Collection[str] = ()
) -> Extractor:
    """The requested extractor; see ``extraction``."""
    chosen = extraction(
        namespace,
        namespace.model,
        namespace.extractor,
        taken=taken,
        others=others,
        preset=namespace.preset,
    )
    from r2d2_kapture.extractors.registry import build_extractor

    return build_extractor(*chosen)


def check_settings(namespace: Namespace, section: str = "") -> None:
    """Check the settings of all extractors and of the computation, before any loads.

    Args:
        namespace: the flags.
        section: prefix of the flags, such as ``extract.`` in ``--extract.top-k``.

    Raises:
        ConfigError: one is out of its range.
    """
    for name in EXTRACTORS.settings():
        typed_settings(namespace, EXTRACTORS, name, section)
    settings_from(namespace, EngineConfig)


def _without(namespace: Namespace, taken: Collection[str]) -> Namespace:
    """The flags, with all that are not settings of extraction at default."""
    values = namespace.clone()
    for name, settings in EXTRACTORS.settings().items():
        for field in dataclasses.fields(settings):
            if EXTRACTORS.prefix(name) + field.name in taken:
                values[field.name] = field.default
    return values


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
