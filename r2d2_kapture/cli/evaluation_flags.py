"""Flags that the commands that evaluate features share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from r2d2_kapture.cli.extraction_flags import (
    add_extraction_flags,
    add_run_flags,
    chosen_checkpoint,
    extract_config,
    parse_extraction,
    save_settings,
)
from r2d2_kapture.cli.sweep import Variant, expand_sweeps
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.stages.feature_sources import (
    ExtractedFeatures,
    FeatureSource,
    features_beside_images,
    features_in_h5,
)
from r2d2_kapture.stages.results_folder import file_stem


def add_evaluation_flags(parser: ArgumentParser) -> None:
    """Add the choice of features, and the flags of their extraction."""
    parser.add_argument(
        "--features-suffix",
        type=str | None,
        help="read features from files beside the images instead of extracting them: "
        "d2-net reads 1.ppm.d2-net, a NumPy archive or a MATLAB file",
    )
    parser.add_argument(
        "--features-h5",
        type=Path | None,
        help="read features from a file of hloc's layout instead, with names relative "
        "to the folder of the images",
    )
    parser.add_argument(
        "--label",
        type=str | None,
        help="what tables call the features; by default the name of the model, or of "
        "the files",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        type=str,
        help="key=a,b,c: compare values of a setting of the extraction, or of model; "
        "several sweeps are combined",
    )
    add_extraction_flags(parser)
    add_run_flags(parser)


def reads_files(namespace: Namespace) -> bool:
    """Whether features are read, not extracted.

    Raises:
        ConfigError: flags that contradict each other.
    """
    suffix, h5 = namespace.features_suffix, namespace.features_h5
    if suffix is not None and h5 is not None:
        raise ConfigError("--features-suffix and --features-h5: expected one of them")
    if suffix is None and h5 is None:
        return False
    if namespace.sweep:
        raise ConfigError(
            "--sweep: compares settings of the extraction, expected no features of "
            "files"
        )
    return True


def stored_source(namespace: Namespace, root: Path) -> FeatureSource:
    """Features of files, of images named relative to root."""
    if namespace.features_suffix is not None:
        return features_beside_images(namespace.features_suffix, namespace.label)
    return features_in_h5(namespace.features_h5, root, namespace.label)


def extracted_sources(
    parser: ArgumentParser, arguments: Sequence[str], namespace: Namespace
) -> list[tuple[ExtractedFeatures, Namespace]]:
    """What is extracted, with its flags: one, or as many as the sweeps combine to."""
    sources = []
    for variant in expand_sweeps(namespace.sweep):
        flags = parse_extraction(parser, [*arguments, *variant.flags])
        if flags is not None:
            sources.append((_extracted(flags, variant), flags))
    return sources


def save_all_settings(
    sources: Sequence[tuple[ExtractedFeatures, Namespace]], output: Path
) -> None:
    """Keep the settings of each extraction beside its results."""
    for source, flags in sources:
        save_settings(flags, output / file_stem(source.label))


def _extracted(flags: Namespace, variant: Variant) -> ExtractedFeatures:
    checkpoint = chosen_checkpoint(flags)
    settings = [f"{k}={v}" for k, v in variant.values.items() if k != "model"]
    return ExtractedFeatures(
        label=" ".join([flags.label or checkpoint.name, *settings]),
        config=extract_config(flags),
        checkpoint=checkpoint,
        extractor=flags.extractor,
    )
