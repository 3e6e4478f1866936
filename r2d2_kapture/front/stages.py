"""The stages as functions, one for each command.

Every function takes the inputs of its stage, with paths as ``str`` or ``Path``; the
settings of the stage, by the names of the command's flags with ``_`` for ``-``;
``preset``, the name of a preset or the path of a YAML file of such settings; and
``workers``, ``force``, ``strict`` and ``progress`` of RunOptions. Those of stages that
make slices take the settings of ExecutorConfig, such as ``executor="ray"``. It returns
the stage's Report, and raises R2D2KaptureError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.executor import ExecutorConfig
from r2d2_kapture.config.extract import AUTO, ExtractConfig, R2D2Config
from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.origins import OriginConfig
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import OF_GIVEN_MODEL, PipelineConfig
from r2d2_kapture.config.presets import read_preset
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.rotations import OFF, read_rotations
from r2d2_kapture.config.settings import (
    make_settings,
    names_of,
    refuse_unknown,
)
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.config.video import VideoConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.front.arguments import (
    PathLike,
    Run,
    extraction,
    make_extractor,
    makes_slices,
    sort_arguments,
    take_settings,
)
from r2d2_kapture.io.images.search import find_images
from r2d2_kapture.io.kapture.feature_table import find_feature_folders
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages import evaluate as evaluate_stage
from r2d2_kapture.stages import export as export_stage
from r2d2_kapture.stages import export_model as export_model_stage
from r2d2_kapture.stages import extract as extract_stage
from r2d2_kapture.stages import imports as imports_stage
from r2d2_kapture.stages import localize as localize_stage
from r2d2_kapture.stages import map as map_stage
from r2d2_kapture.stages import match as match_stage
from r2d2_kapture.stages import pairs as pairs_stage
from r2d2_kapture.stages import pipeline
from r2d2_kapture.stages import refine as refine_stage
from r2d2_kapture.stages import verify as verify_stage
from r2d2_kapture.stages.benchmark import ExtractedFeatures, hpatches, pair_poses
from r2d2_kapture.stages.cluster import Executor, open_executor
from r2d2_kapture.stages.extract import files as extract_files
from r2d2_kapture.stages.extract import searched_folders
from r2d2_kapture.stages.report import run as write_page
from r2d2_kapture.stages.report import with_page
from r2d2_kapture.types import Report


def extract(
    *,
    kapture_root: PathLike,
    model: PathLike | None = None,
    extractor: str = AUTO,
    preset: PathLike | None = None,
    **arguments: Any,
) -> Report:
    """Extract every image of a kapture dataset, as kapture_r2d2_extract does."""
    inputs, settings = sort_arguments(extract_stage.run, arguments)
    with _executor(settings) as execute:
        return execute(
            extract_stage.run,
            make_extractor(extractor, model, preset, settings),
            kapture_root=Path(kapture_root),
            **inputs,
        )


def extract_images(
    images: PathLike | Sequence[PathLike],
    *,
    model: PathLike | None = None,
    extractor: str = AUTO,
    preset: PathLike | None = None,
    exclude: Sequence[str] = (),
    masks: PathLike | None = None,
    **arguments: Any,
) -> Report:
    """Extract image files into feature files, as kapture_r2d2_extract_images does.

    Args:
        images: files, folders or glob patterns.
        model: name of a bundled model, or path of weights; see load_extractor.
        extractor: its name; auto is the one for the model.
        preset: of configs/extract.
        exclude: patterns of what to leave out.
        masks: folder of masks; black pixels get no keypoints.
        arguments: see the module.
    """
    given = [images] if isinstance(images, (str, Path)) else images
    patterns = [str(pattern) for pattern in given]
    mask_folder = None if masks is None else Path(masks)
    found = find_images(patterns, exclude, mask_folder)
    inputs, settings = sort_arguments(extract_files.run, arguments)
    with _executor(settings) as execute:
        return execute(
            extract_files.run,
            make_extractor(extractor, model, preset, settings),
            images=found.paths,
            folders=searched_folders(patterns),
            masks=mask_folder,
            notes=found.warnings,
            **inputs,
        )


def export(**arguments: Any) -> Report:
    """Export features to COLMAP or hloc, as kapture_r2d2_export does."""
    return _run(export_stage.run, OriginConfig, arguments)


def export_model(**arguments: Any) -> Report:
    """Export a network for other runtimes, as kapture_r2d2_export_model does."""
    return _run(export_model_stage.run, R2D2Config, arguments)


def import_dataset(**arguments: Any) -> Report:
    """Make a dataset of what others made, as kapture_r2d2_import does."""
    return _run(imports_stage.run, VideoConfig, arguments)


def choose_pairs(**arguments: Any) -> Report:
    """Choose pairs of images to match, as kapture_r2d2_pairs does."""
    return _run(pairs_stage.run, PairsConfig, arguments)


def match_pairs(**arguments: Any) -> Report:
    """Match pairs of images, as kapture_r2d2_match does."""
    return _run(match_stage.run, MatchConfig, arguments)


def verify_pairs(**arguments: Any) -> Report:
    """Verify matches and write a COLMAP database, as kapture_r2d2_verify does."""
    return _run(verify_stage.run, VerifyConfig, arguments)


def refine_keypoints(**arguments: Any) -> Report:
    """Register keypoints along tracks, as kapture_r2d2_refine does."""
    return _run(refine_stage.run, RefineConfig, arguments)


def build_map(**arguments: Any) -> Report:
    """Reconstruct a map from a verified database, as kapture_r2d2_map does."""
    return _run(map_stage.run, MapConfig, arguments)


def localize(**arguments: Any) -> Report:
    """Localize the images of a query dataset, as kapture_r2d2_localize does."""
    return _run(localize_stage.run, LocalizeConfig, arguments)


def evaluate(**arguments: Any) -> Report:
    """Compare poses with ground truth, as kapture_r2d2_evaluate does."""
    return _run(evaluate_stage.run, EvaluateConfig, arguments)


def run_pipeline(
    *,
    model: PathLike | None = None,
    extractor: str = AUTO,
    config: PathLike | None = None,
    preset: PathLike | None = None,
    queries: Mapping[str, PathLike] | None = None,
    **arguments: Any,
) -> Report:
    """From images to a map and localized queries, as kapture_r2d2_pipeline does.

    Ends with report.html in the output folder; what keeps it from being written is a
    warning.

    Args:
        model: extracts local features; without one and an extractor, existing features
            are used, or a bundled model if there are none.
        extractor: its name; auto is the one for the model.
        config: preset of configs/pipelines, or a YAML file of settings by section.
        preset: of configs/extract; overrides ``config``.
        queries: kapture datasets or folders of photographs to localize, by name.
        arguments: see the module; settings are mappings by section, such as
            ``match={"ratio": 0.95}``; ``refine=False`` leaves refinement out.
    """
    inputs, settings = sort_arguments(pipeline.run, arguments)
    executor = _executor(settings)
    if "refine" in settings:
        settings["refine"] = _refinement(settings["refine"])
    datasets = {name: Path(path) for name, path in (queries or {}).items()}
    given = inputs.get("model_in") is not None
    of_datasets = [] if given else [inputs.get("mapping"), *datasets.values()]
    roots = [*inputs.get("features", ()), *of_datasets]
    sections = {name: dict(OF_GIVEN_MODEL[name]) for name in OF_GIVEN_MODEL if given}
    of_preset = {} if config is None else read_preset(str(config), "pipelines")
    extraction_preset = {} if preset is None else read_preset(str(preset), "extract")
    every = [*of_preset.items(), ("extract", extraction_preset), *settings.items()]
    for name, values in every:
        sections[name] = {**sections.get(name, {}), **values}
    ours = sections.pop("extract")
    extract: ExtractConfig | None
    extract, weights = extraction(extractor, model, None, ours)
    exists = any(find_feature_folders(root, "keypoints") for root in roots if root)
    if model is None and extractor == AUTO and exists:
        extract, weights = None, None
    settled = dataclasses.replace(pipeline_config(sections), extract=extract)
    with executor as execute:
        report = pipeline.run(
            settled, queries=datasets, weights=weights, execute=execute, **inputs
        )
    return with_page(report, lambda: write_page(pipeline=inputs["output"]))


def _refinement(given: Any) -> Mapping[str, Any]:
    """Settings of the section from them, or from a switch.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(given, Mapping):
        return given
    require(
        isinstance(given, bool),
        f"refine={given!r}: expected true, false or settings by name",
    )
    return {"use": given}


def pipeline_config(sections: Mapping[str, Mapping[str, Any]]) -> PipelineConfig:
    """Settings of a pipeline from mappings by section, except for those of extraction.

    Raises:
        ConfigError: an unknown section or setting, or a bad value.
    """
    refuse_unknown(sections, names_of(PipelineConfig))
    return PipelineConfig(
        **{
            name: make_settings(type(getattr(PipelineConfig, name)), values)
            for name, values in sections.items()
        }
    )


def evaluate_sequences(
    *,
    root: PathLike,
    output: PathLike,
    model: PathLike | None = None,
    extractor: str = AUTO,
    preset: PathLike | None = None,
    label: str | None = None,
    rotations: str = OFF.text,
    **arguments: Any,
) -> Report:
    """Measure accuracy on homography sequences, as kapture_r2d2_hpatches does.

    Tables and the plot of accuracy are written next to the results.
    """
    inputs, settings = sort_arguments(benchmark.run, arguments)
    config = make_settings(HomographyConfig, take_settings(HomographyConfig, settings))
    return benchmark.run(
        hpatches.open_benchmark(config, root=Path(root)),
        sources=[
            _source(
                make_extractor(extractor, model, preset, settings), label, rotations
            )
        ],
        output=Path(output),
        **inputs,
    )


def evaluate_pairs(
    *,
    output: PathLike,
    gt: PathLike | None = None,
    kapture_root: PathLike | None = None,
    model: PathLike | None = None,
    extractor: str = AUTO,
    preset: PathLike | None = None,
    label: str | None = None,
    rotations: str = OFF.text,
    **arguments: Any,
) -> Report:
    """Measure accuracy on pairs of known cameras, as kapture_r2d2_pair_poses does.

    Tables are written next to the results.

    Args:
        output: folder of results, tables and pictures.
        gt: JSON file of images with name, K, dist, R and t; or
        kapture_root: dataset with poses.
        model: name of a bundled model, or path of weights; see load_extractor.
        extractor: its name; auto is the one for the model.
        preset: of configs/extract.
        label: name of the features in tables.
        rotations: quarter turns in which the network sees images, see --rotations of
            the command.
        arguments: see the module.
    """
    inputs, settings = sort_arguments(benchmark.run, arguments)
    config = make_settings(PairPosesConfig, take_settings(PairPosesConfig, settings))
    return benchmark.run(
        pair_poses.open_benchmark(
            config,
            gt=None if gt is None else Path(gt),
            kapture_root=None if kapture_root is None else Path(kapture_root),
        ),
        sources=[
            _source(
                make_extractor(extractor, model, preset, settings), label, rotations
            )
        ],
        output=Path(output),
        **inputs,
    )


def _run(run: Run, settings: type, arguments: dict[str, Any]) -> Report:
    """Call a stage that takes the settings of one dataclass."""
    inputs, values = sort_arguments(run, arguments)
    with _executor(values if makes_slices(run) else {}) as execute:
        return execute(run, make_settings(settings, values), **inputs)


def _executor(settings: dict[str, Any]) -> AbstractContextManager[Executor]:
    """Who runs a stage that makes slices; its settings are removed from the others."""
    own = take_settings(ExecutorConfig, settings)
    return open_executor(make_settings(ExecutorConfig, own))


def _source(
    extractor: Extractor, label: str | None, rotations: str
) -> ExtractedFeatures:
    return ExtractedFeatures(
        label=label or extractor.label,
        extractor=extractor,
        rotations=read_rotations(rotations),
    )
