"""The record of a run for its report: inputs, settings, versions and times.

It is stored in pipeline_report.json with the reports of the stages, so that a report
can be made long after the run, and without the datasets.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from r2d2_kapture.config.extract import EXTRACTORS, ExtractConfig, R2D2Config
from r2d2_kapture.config.match import MATCHERS, MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.core.processor import this_processor
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.io.outputs.manifest import package_versions

CHOSEN = {"extract": "extractor", "match": "matcher"}
"""Sections whose settings belong to a chosen class."""
NOT_WORK = ("stage", "failed", "warnings", "outputs")
"""Fields of a stage's report that a resumed run reports again."""


def run_record(
    config: PipelineConfig,
    *,
    mapping: Dataset,
    queries: Mapping[str, Dataset],
    features: Sequence[Path],
    keypoints_type: str | None,
    extractor: Extractor | None,
    model_in: Path | None = None,
    rotations: str = "off",
) -> dict[str, Any]:
    """The inputs and environment of a pipeline, as plain JSON values.

    Args:
        config: of all stages.
        mapping, queries: datasets.
        features: folders.
        keypoints_type: of the features in use; None takes the only existing one.
        extractor: of local features, if any.
        model_in: that the dataset of the map was made of, if any.
        rotations: in which extraction saw the images.
    """
    given = {} if model_in is None else {"model_in": str(model_in.resolve())}
    given |= {} if rotations == "off" else {"rotations": rotations}
    return {
        "inputs": {
            "mapping": describe_dataset(mapping),
            "queries": {name: describe_dataset(one) for name, one in queries.items()},
            "features": [str(folder.resolve()) for folder in features],
            "keypoints_type": keypoints_type,
            **given,
        },
        "settings": plain_settings(config),
        "model": None if extractor is None else describe_model(extractor),
        "environment": environment(),
    }


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Path of a kapture dataset, and numbers of images, cameras and poses."""
    return {
        "path": str(dataset.root.resolve()),
        "images": len(dataset.image_names),
        "cameras": len({one.sensor_id for one in image_records(dataset.data).values()}),
        "images_with_pose": len(read_camera_poses(dataset).cam_from_world),
    }


def plain_settings(config: PipelineConfig) -> dict[str, Any]:
    """The settings of all stages as plain values; those of matcher and extractor by
    its name."""
    settings = dict(json.loads(json.dumps(dataclasses.asdict(config), default=str)))
    for section, kind in CHOSEN.items():
        if settings[section] is None:
            del settings[section]
            continue
        chosen = getattr(getattr(config, section), kind)
        of_chosen = settings[section].pop(kind)
        settings[section] |= {kind: getattr(chosen, kind), **of_chosen}
    return settings


def default_settings(chosen: Mapping[str, str | None] = {}) -> dict[str, Any]:
    """The result of ``plain_settings`` for default settings, extraction included.

    Args:
        chosen: names of the ``matcher`` and the ``extractor`` whose settings are
            listed; without one, or if it is not installed, those of the default.
    """
    extractor = EXTRACTORS.settings().get(str(chosen.get("extractor")), R2D2Config)
    matchers = MATCHERS.settings()
    matcher = matchers.get(str(chosen.get("matcher")), MutualNearestConfig)
    plain = plain_settings(
        PipelineConfig(
            extract=ExtractConfig(extractor=extractor()),
            match=MatchConfig(matcher=matcher()),
        )
    )
    plain["extract"]["extractor"] = R2D2Config.extractor
    plain["match"]["matcher"] = MutualNearestConfig.matcher
    return plain


def describe_model(extractor: Extractor) -> dict[str, str | None]:
    """The weights of the extraction, and their licence if stated."""
    weights = extractor.weights
    return {
        "name": extractor.label,
        "sha256": None if weights is None else weights.sha256,
        "license": None if weights is None else weights.license,
    }


def environment() -> dict[str, Any]:
    """Versions of packages, and the processors of this computer."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "versions": package_versions() | {"pycolmap": metadata.version("pycolmap")},
        "processor": f"{platform.machine()}, {this_processor().name}",
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
    }


def with_earlier_work(
    stages: Sequence[dict[str, Any]], earlier: Path
) -> list[dict[str, Any]]:
    """Reports of stages with ``work``: counts and time of the run that did it.

    A resumed run takes no time for finished work; the record of an earlier run with the
    same outputs is kept.

    Args:
        stages: reports of this run as plain values.
        earlier: the report of an earlier run; may be missing or broken.
    """
    before = {
        key: stage.get("work") for key, stage in _by_place(read_stages(earlier)).items()
    }
    kept = []
    for key, stage in _by_place(stages).items():
        work = {name: value for name, value in stage.items() if name not in NOT_WORK}
        resumed = not stage["done"] and isinstance(before.get(key), dict)
        kept.append(stage | {"work": before[key] if resumed else work})
    return kept


def read_stages(path: Path) -> list[dict[str, Any]]:
    """The reports of stages in that of a pipeline; empty if it cannot be read."""
    try:
        stages = read_json(path)["stages"]
        return [stage for stage in stages if {"stage", "outputs"} <= stage.keys()]
    except (TypeError, KeyError, AttributeError):
        return []


def _by_place(
    stages: Sequence[dict[str, Any]],
) -> dict[tuple[str, int], dict[str, Any]]:
    """Stages by name and outputs; if these are equal, by their order."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    turns: Counter[str] = Counter()
    for stage in stages:
        place = json.dumps([stage["stage"], stage["outputs"]])
        found[place, turns[place]] = stage
        turns[place] += 1
    return found
