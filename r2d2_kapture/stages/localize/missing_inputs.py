"""What localization lacks is made of what the map brings: features, pairs, matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.extract import ExtractConfig, SiftConfig
from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.colmap.image_folder import write_image_folder_dataset
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_table import (
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.stages import extract, imports, match, pairs
from r2d2_kapture.types import Failure, Report, some_names

SIFT = "sift"
"""What the import calls the features of a database that says so."""
SIFT_RATIO = 0.8
"""COLMAP's: of SIFT, many mutual neighbours are neighbours by chance."""
FEW_IMAGES = 20
"""Of a map, up to which queries are matched with all; else with as many alike."""
DATABASE = "database.db"


@dataclass(frozen=True, kw_only=True)
class Completed:
    """All inputs of localization.

    Attributes:
        query: dataset of the queries.
        features: folders of the features of queries and map images.
        keypoints_type: of these.
        pairs: list of queries and map images.
        matches: folders of their matches.
        failed: queries that features could not be extracted from.
        warnings: what the user should know of what was made.
    """

    query: Dataset
    features: tuple[Path, ...]
    keypoints_type: str | None
    pairs: Path
    matches: tuple[Path, ...]
    failed: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()


def complete(
    *,
    map_path: Path,
    query: DatasetOrPath,
    features: Sequence[Path],
    keypoints_type: str | None,
    pairs_file: Path | None,
    place: Path,
    options: RunOptions,
) -> Completed:
    """Make pairs and matches of queries with the images of a map.

    Features of the map are those given, those next to it, or the descriptors of the
    COLMAP database that it was made of. Of queries without features, SIFT is
    extracted if the map has it.

    Args:
        map_path: the map.
        query: dataset of the queries, or a folder of photographs.
        features: folders of features; may be empty.
        keypoints_type: of these; None takes the only one there is.
        pairs_file: list of pairs that exists; None makes one.
        place: folder for what is made.
        options: how the stages run.

    Raises:
        DatasetError: features are missing that cannot be made here, with the command
            that makes them.
    """
    options = RunOptions(
        workers=options.workers, replace=options.replaces, progress=options.progress
    )
    dataset = query_dataset(query, place, options)
    mapping, roots, type_name = _map_features(
        map_path, dataset, features, keypoints_type, place, options
    )
    reports: list[Report] = []
    if not _have_features([*roots, dataset.root], type_name, dataset.image_names):
        if type_name != SIFT:
            raise DatasetError(
                f"{dataset.root}: found no features of type '{type_name}', expected "
                "those that the map has; extract them with its model: "
                f"kapture_r2d2_extract --kapture-root {dataset.root} --model MODEL "
                f"--keypoints-type {type_name}"
            )
        extractor = build_extractor(ExtractConfig(extractor=SiftConfig()), None)
        reports.append(
            extract.run(
                extractor,
                kapture_root=dataset,
                output=place / "features",
                keypoints_type=type_name,
                options=options,
            )
        )
        roots = (*roots, place / "features")
    roots = tuple(dict.fromkeys([*roots, dataset.root]))
    if pairs_file is None:
        pairs_file = place / "pairs.txt"
        few = len(mapping.image_names) <= FEW_IMAGES
        reports.append(
            pairs.run(
                PairsConfig(method="exhaustive" if few else "local"),
                mapping=mapping,
                query=dataset,
                output=pairs_file,
                features=roots,
                keypoints_type=type_name,
                descriptors_type=type_name,
                options=options,
            )
        )
    matcher = MutualNearestConfig(ratio=SIFT_RATIO if type_name == SIFT else 1.0)
    reports.append(
        match.run(
            MatchConfig(matcher=matcher),
            features=roots,
            pairs=pairs_file,
            output=place / "matches",
            keypoints_type=type_name,
            descriptors_type=type_name,
            options=options,
        )
    )
    return Completed(
        query=dataset,
        features=roots,
        keypoints_type=type_name,
        pairs=pairs_file,
        matches=(place / "matches",),
        failed=tuple(f for report in reports[:1] for f in report.failed),
        warnings=tuple(
            f"{report.stage}: {text}" for report in reports for text in report.warnings
        ),
    )


def query_dataset(query: DatasetOrPath, place: Path, options: RunOptions) -> Dataset:
    """The queries; of a folder of photographs a dataset of links is made.

    Raises:
        DatasetError: no dataset, and no photographs.
    """
    if isinstance(query, Path) and query.is_dir() and not (query / "sensors").exists():
        name = query.resolve().name
        query = place / "query"
        write_image_folder_dataset(
            query, query, FolderConfig(), query=name, replace=options.replaces
        )
    return open_dataset(query)
