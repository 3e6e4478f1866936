"""What localization lacks, made of what the map brings: features, pairs, matches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r2d2_kapture.config.extract import ExtractConfig, SiftConfig
from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.colmap.image_folder import write_image_folder_dataset
from r2d2_kapture.io.colmap.sparse_map import colmap_model_of
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_table import find_feature_folders
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.stages import extract, imports, match, pairs
from r2d2_kapture.types import Report, some_names

SIFT = "sift"
SIFT_RATIO = 0.8
"""Of COLMAP's matcher: RootSIFT has many mutual neighbours by chance."""
MOST_EXHAUSTIVE = 20
"""Images of a map up to which queries are matched with all; else with as many that
look most alike."""


@dataclass(kw_only=True)
class Inputs:
    """The inputs of localization as they become complete.

    Attributes:
        map_path: the map.
        query: dataset of the queries.
        features: folders of keypoints and descriptors.
        keypoints_type: of these.
        pairs: list of queries and map images.
        matches: folders of matches.
        place: folder for what is made.
        options: how to run.
        reports: of what was made.
    """

    map_path: Path
    query: Dataset
    features: tuple[Path, ...]
    keypoints_type: str | None
    pairs: Path | None
    matches: tuple[Path, ...]
    place: Path
    options: RunOptions
    reports: list[Report] = field(default_factory=list)


def query_dataset(query: DatasetOrPath, place: Path, options: RunOptions) -> Dataset:
    """The dataset of the queries; one of links is made of a folder of photographs.

    Raises:
        DatasetError: no dataset, and no photographs.
    """
    plain = isinstance(query, Path) and query.is_dir()
    if not plain or (query / "sensors").exists():
        return open_dataset(query)
    return open_dataset(
        write_image_folder_dataset(
            query,
            place / "query",
            FolderConfig(),
            query=query.resolve().name,
            replace=options.replaces,
        ).root
    )
