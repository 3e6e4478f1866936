"""Flags shared by the commands that evaluate features."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from r2d2_kapture.cli.door_flags import changed_flags
from r2d2_kapture.cli.extraction_flags import (
    add_extraction_flags,
    add_rotations_flag,
    check_settings,
    make_extractor,
    resolve_extraction_preset,
    save_settings,
    setting_names,
)
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.repeated_flags import replace_flags
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_parameters,
    add_stage_flags,
    parameter_values,
)
from r2d2_kapture.cli.sweep import Variant, expand_sweeps
from r2d2_kapture.config.extract import AUTO, DEFAULT_MODEL, EXTRACTORS
from r2d2_kapture.config.rotations import OFF, read_rotations
from r2d2_kapture.errors import ConfigError, R2D2KaptureError

if TYPE_CHECKING:
    from r2d2_kapture.core.extraction import Extractor
    from r2d2_kapture.stages.benchmark.feature_sources import (
        ExtractedFeatures,
        FeatureSource,
    )

WORKERS = 2
STAGE = "r2d2_kapture.stages.benchmark.stored_features"
OF_DATASET = ("kapture_root", "camera_origin")
"""What a command that evaluates a dataset has without existing features, too."""
TYPES = ("keypoints_type", "descriptors_type")
STORED = ("features_suffix", "features_h5", "keypoints_type")
"""Flags that select existing features; a command may lack some."""


def add_evaluation_flags(parser: CommandParser, item: str, of_dataset: bool) -> None:
    """Add the choice of features, the flags of their extraction and of the run.

    Args:
        parser: of the command.
        item: the evaluated items, such as ``pair``.
        of_dataset: whether images may be those of a kapture dataset.
    """
    parameters = read_signature(STAGE, "open_stored").parameters
    taken = OF_DATASET if of_dataset else (*OF_DATASET, *TYPES)
    groups, metavars = {"features": ["label"]}, {"features_suffix": "SUFFIX"}
    add_parameters(parser, parameters, groups, metavars, taken)
    parser.group("features").add_argument(
        "--sweep",
        nargs="+",
        default=[],
        type=str,
        metavar="KEY=A,B",
        help="key=a,b,c: compare values of a setting in one table; several sweeps are "
        "combined, as in --sweep top-k=1000,5000 --sweep subpixel=true,false; keys: "
        f"{', '.join(key.replace('_', '-') for key in sweep_keys())}",
    )
    parser.group("features").add_argument(
        "--rivals",
        nargs="+",
        default=[],
        type=str,
        metavar="NAME",
        help="extractors to compare with, in the same tables and plots: NAME, or "
        "NAME:MODEL with weights, as in --rivals sift aliked:aliked-n16.pth",
    )
    add_extraction_flags(parser)
    add_rotations_flag(parser, "others" if of_dataset else "the first of its sequence")
    add_stage_flags(parser, item)
    # the network uses cores of its own
    parser.set_defaults({"workers": WORKERS})


def sweep_keys() -> list[str]:
    """Settings that determine features, and can be compared."""
    return ["model", "extractor", *setting_names()]


def feature_sources(
    parser: CommandParser, arguments: Sequence[str], namespace: Namespace, root: Path
) -> list[tuple[FeatureSource, Namespace | None]]:
    """Existing features, or extractions: one for each combination of the sweeps.

    Args:
        parser: of the command.
        arguments: as typed.
        namespace: the flags.
        root: folder that names of images are relative to.

    Returns:
        Sources, each with the flags of its extraction; None for existing features.

    Raises:
        ConfigError: flags contradict each other, or a sweep or a setting is wrong.
        CheckpointError: a model cannot be loaded.
        FeatureFormatError, DatasetError: existing features cannot be read.
    """
    rivals = [text.partition(":")[::2] for text in namespace.rivals]
    names = [name for name, _ in rivals]
    return [
        *_main_sources(parser, arguments, namespace, root, names),
        *(_rival(namespace, name, model or None) for name, model in rivals),
    ]


def _main_sources(
    parser: CommandParser,
    arguments: Sequence[str],
    namespace: Namespace,
    root: Path,
    rivals: Collection[str],
) -> list[tuple[FeatureSource, Namespace | None]]:
    """Those besides the rivals, whose settings may be given too."""
    given = [name for name in STORED if namespace.get(name) is not None]
    if given:
        return [(_stored_source(namespace, given, root, rivals), None)]
    if namespace.keypoint_origin != "auto":
        raise ConfigError(
            f"--keypoint-origin {namespace.keypoint_origin}: describes existing "
            "features, but none are given; extracted ones count from the center"
        )
    variants = expand_sweeps(namespace.sweep, sweep_keys())
    flags = [_parse_variant(parser, arguments, variant) for variant in variants]
    for item in flags:
        check_settings(item)
    extractors = [make_extractor(item, others=rivals) for item in flags]
    names = _tell_apart({_typed(f): x.label for f, x in zip(flags, extractors)})
    return [
        (_extracted(item, variant, extractor, names), item)
        for item, variant, extractor in zip(flags, variants, extractors)
    ]


def _rival(
    namespace: Namespace, name: str, model: str | None
) -> tuple[ExtractedFeatures, Namespace]:
    """An extractor to compare with, and the flags that it takes its settings from.

    Raises:
        ConfigError: there is none of that name, with these weights or settings.
    """
    flags = namespace.clone()
    flags.extractor, flags.model = name, model
    try:
        extractor = make_extractor(flags, others=EXTRACTORS.settings())
    except R2D2KaptureError as error:
        typed = name if model is None else f"{name}:{model}"
        reason = str(error).removeprefix(f"--extractor {name}: ")
        raise ConfigError(
            f"--rivals {typed}: {reason}; rivals are NAME or NAME:MODEL"
        ) from error
    from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures

    rotations = read_rotations(namespace.rotations)
    made = ExtractedFeatures(
        label=extractor.label, extractor=extractor, rotations=rotations
    )
    return made, flags


def _stored_source(
    namespace: Namespace, given: Sequence[str], root: Path, rivals: Collection[str]
) -> FeatureSource:
    """Features read from files or a dataset, of images named relative to root."""
    flags = [f"--{name.replace('_', '-')}" for name in given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(flags)}: expected one of them")
    _refuse_extraction(namespace, flags[0], rivals)
    from r2d2_kapture.stages.benchmark.stored_features import open_stored

    parameters = read_signature(STAGE, "open_stored").parameters
    return open_stored(root, **parameter_values(namespace, parameters))


def _refuse_extraction(
    namespace: Namespace, chosen: str, rivals: Collection[str]
) -> None:
    """Refuse flags of extraction, since the chosen flag selects existing features."""
    flags = {
        "--sweep": namespace.sweep != [],
        "--model": namespace.model is not None,
        "--extractor": namespace.extractor != AUTO,
        "--rotations": namespace.rotations != OFF.text,
    }
    given = [flag for flag, is_given in flags.items() if is_given]
    for name in EXTRACTORS.settings():
        given += [] if name in rivals else changed_flags(namespace, EXTRACTORS, name)
    if given:
        raise ConfigError(
            f"{', '.join(given)}: describes an extraction, but {chosen} uses existing "
            "features; remove one of them"
        )


def save_all_settings(
    sources: Sequence[tuple[FeatureSource, Namespace | None]], output: Path
) -> None:
    """Write the settings of each extraction next to its results."""
    from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures
    from r2d2_kapture.stages.benchmark.results_folder import file_stem

    for source, flags in sources:
        if flags is not None and isinstance(source, ExtractedFeatures):
            save_settings(flags, source.extractor, output / file_stem(source.label))


def _parse_variant(
    parser: CommandParser, arguments: Sequence[str], variant: Variant
) -> Namespace:
    # all other flags have been parsed before: only the sweep can be wrong
    parser.exit_on_error = False
    try:
        swept = replace_flags(parser, arguments, variant.flags)
        return parser.parse_args(resolve_extraction_preset(swept))
    except ArgumentError as error:
        typed = ", ".join(f"{key}={value}" for key, value in variant.values.items())
        raise ConfigError(f"--sweep {typed}: {error}") from error


def _tell_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Distinct names of models, by the typed arguments.

    A name is the model's own, with its folder if necessary, else as typed.
    """
    in_folders = {
        typed: f"{Path(typed).absolute().parent.name}/{name}"
        for typed, name in names.items()
    }
    for choice in (dict(names), in_folders):
        if len(set(choice.values())) == len(choice):
            return choice
    return {typed: typed for typed in names}


def _typed(flags: Namespace) -> str:
    """What distinguishes the weights of two extractions, as typed."""
    return str(
        flags.model or (DEFAULT_MODEL if flags.extractor == AUTO else flags.extractor)
    )


def _extracted(
    flags: Namespace,
    variant: Variant,
    extractor: Extractor,
    names: Mapping[str, str],
) -> ExtractedFeatures:
    from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures

    model = names[_typed(flags)]
    if flags.label is not None:
        model = flags.label if len(names) == 1 else f"{flags.label} {model}"
    settings = [f"{k}={v}" for k, v in variant.values.items() if k != "model"]
    return ExtractedFeatures(
        label=" ".join([model, *settings]),
        extractor=extractor,
        rotations=read_rotations(flags.rotations),
    )
