"""What a pipeline refuses before hours of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_table import find_feature_folders
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.kapture.refined_features import is_refined
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.manifest import FILE_NAME, read_manifest
from r2d2_kapture.stages.pipeline_layout import Layout

REFINED = ("keypoints as extracted", "refined keypoints", "keypoints refined twice")
"""What an output has, by how often keypoints were refined."""


def check_folders(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse, before anything is made, inputs that are missing, or written into.

    Raises:
        DatasetError: an input is not there.
        OutputError: the output is one of the inputs, or inside of one.
    """
    for folder in inputs:
        if not folder.exists():
            raise DatasetError(
                f"{folder}: found no such folder, expected a folder of photographs, a "
                "kapture dataset or features"
            )
        if output.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{output}: is inside of the input {folder}; choose another output"
            )


def check_model(
    config: PipelineConfig,
    *,
    model_in: Path | None,
    images: Path | None,
    mapping: Path | None,
) -> None:
    """Refuse inputs that do not go with a model, or that it lacks.

    Raises:
        ConfigError: naming the flag.
    """
    if model_in is None:
        return
    require(
        mapping is None,
        f"--model-in {model_in}: found --mapping {mapping}, expected --images: the "
        "folder of the model's photographs",
    )
    require(
        images is not None,
        f"--model-in {model_in}: found no --images, expected the folder that the image "
        "names of the model are relative to",
    )
    model = config.photographs.camera_model
    require(
        model is None or bool(config.photographs.params),
        f"--camera-model {model}: found --model-in, whose cameras are kept, and no "
        "--camera-params, expected those of the queries' camera; or leave it out",
    )


def check_methods(
    config: PipelineConfig,
    mapping: Dataset,
    queries: Iterable[Dataset],
    roots: Iterable[Path],
    *,
    model_in: Path | None = None,
) -> None:
    """Refuse pair methods whose inputs a pipeline lacks, before any work.

    Args:
        config: of the pairs.
        mapping, queries: the images.
        roots: of features.
        model_in: that of the map's images, which covisibility needs.

    Raises:
        ConfigError: naming the setting.
    """
    sections = {"mapping_pairs": (config.mapping_pairs, [mapping])}
    if queries := list(queries):
        sections["query_pairs"] = config.query_pairs, [mapping, *queries]
    for section, (which, datasets) in sections.items():
        setting = f"--{section}.method {which.method}"
        has_map = model_in is not None and section == "mapping_pairs"
        require(
            which.method not in ("fuse", "merge")
            and (which.method != "covisibility" or has_map),
            f"{setting}: needs a map or lists that a pipeline does not have; choose "
            "another, or run kapture_r2d2_pairs separately",
        )
        require(
            which.method != "sequential" or section != "query_pairs",
            f"{setting}: expected for the images of a map alone; choose another",
        )
        for dataset in datasets:
            table = {"gnss": "records_gnss", "poses": "trajectories"}.get(which.method)
            require(
                table is None or bool(getattr(dataset.data, table)),
                f"{setting}: found no {table}.txt in {dataset.root}; choose another",
            )
        loops = which.method == "sequential"
        require(
            which.similarity != "global"
            or any(find_feature_folders(root, "global_features") for root in roots),
            f"{setting}: found no global features in the datasets; give their folder "
            f"with --features, or choose --{section}.{'loop-by' if loops else 'method'}"
            " local",
        )


def refuse_other_map(layout: Layout, mapping: Dataset) -> None:
    """Refuse an output with a map of entirely different images.

    Raises:
        OutputError: the earlier pairs share no image with the dataset.
    """
    pairs_file = layout.pairs("mapping")
    if not pairs_file.is_file():
        return
    paired = frozenset(read_pairs(pairs_file).images)
    if paired and paired.isdisjoint(mapping.image_names):
        found = f"a map of other images than those of {mapping.root}"
        raise Contents(what="map", files=()).refusal(layout.output, found)


def as_possible(
    config: PipelineConfig,
    layout: Layout,
    mapping: Dataset,
    roots: Sequence[Path],
    keypoints_type: str | None,
    *,
    anew: bool,
) -> tuple[PipelineConfig, tuple[str, ...]]:
    """The settings without refinement, if it is left out or cannot be.

    Args:
        config: as given.
        layout: of the outputs; refined keypoints there need no photographs.
        mapping: images of the map.
        roots: of existing features.
        keypoints_type: as given.
        anew: whether outputs are made again.

    Returns:
        The settings, and a sentence for the report.
    """
    if not config.refine.use:
        return config.without_refinement, ()
    refined = _refined_before(config, roots, keypoints_type)
    if refined is not None:
        once = dataclasses.replace(config.refine, use=False)
        return dataclasses.replace(config, refine=once), (
            f"keypoints are not refined, since by the name of their type, {refined}, "
            "they are already",
        )
    done = layout.refined_database.is_file() and not anew
    if done or any(path.is_file() for path in mapping.image_paths.values()):
        return config, ()
    return config.without_refinement, (
        f"keypoints are not refined, since none of the {len(mapping.image_names)} "
        f"images of {mapping.root} is there",
    )


def _refined_before(
    config: PipelineConfig, roots: Sequence[Path], keypoints_type: str | None
) -> str | None:
    """The type of the keypoints in use, if they are refined ones."""
    names = {keypoints_type}
    if keypoints_type is None and config.extract is None:
        folders = (find_feature_folders(root, "keypoints") for root in roots)
        names = {folder.type_name for found in folders for folder in found}
    only = names.pop() if len(names) == 1 else None
    return only if only is not None and is_refined(only) else None


def refuse_other_refinement(layout: Layout, config: PipelineConfig) -> None:
    """Refuse an output with a map of keypoints that were refined otherwise.

    Args:
        layout: of the outputs.
        config: whether keypoints are refined now, and how often.

    Raises:
        OutputError: with the ways out.
    """
    of_map = read_manifest(layout.map / FILE_NAME)
    used = "" if of_map is None else str(of_map.settings.get("keypoints_type"))
    wanted = 1 + config.refines_again if config.refine.use else 0
    if layout.first_map.is_dir() or layout.refined_again.is_dir():
        found = 2
    else:
        found = int(layout.refined.is_dir() or (wanted > 0 and is_refined(used)))
    # a run that was stopped before the map goes on
    if wanted == found or (of_map is None and wanted > found):
        return
    again = "--refine.no-again" if wanted else "--refine on"
    flag = ("--refine off", again, "--refine.again")[found]
    raise OutputError(
        f"{layout.output}: found {REFINED[found]}, expected {REFINED[wanted]}; give "
        f"{flag} to continue as before, choose another --output, or --force to redo "
        "the map"
    )


def refuse_other_features(layout: Layout, keypoints_type: str) -> None:
    """Refuse an output with features of other models, such as an earlier default.

    Args:
        layout: of the outputs.
        keypoints_type: of the features that would be extracted beside them.

    Raises:
        OutputError: naming their type.
    """
    if not layout.features.is_dir():
        return
    folders = find_feature_folders(layout.features, "keypoints")
    types = sorted(folder.type_name for folder in folders)
    if types and keypoints_type not in types:
        earlier = ", ".join(types)
        raise OutputError(
            f"{layout.output}: found features of type {earlier}, expected "
            f"{keypoints_type}; give their --model ({earlier}) to continue with them, "
            f"choose another --output, or --force to redo it with {keypoints_type}"
        )
