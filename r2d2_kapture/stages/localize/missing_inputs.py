"""What localization lacks is made of what the map brings: features, pairs, matches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import kapture

from r2d2_kapture.config.extract import ExtractConfig, SiftConfig
from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.colmap.image_folder import write_image_folder_dataset
from r2d2_kapture.io.colmap.sparse_map import (
    read_sparse_map,
    recorded_keypoints_type,
)
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_table import (
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.io.kapture.refined_features import extracted_type
from r2d2_kapture.stages import extract, imports, match, pairs
from r2d2_kapture.types import Failure, Report, counted

SIFT = "sift"
"""What the import calls the features of a database that says so."""
SIFT_RATIO = 0.8
"""COLMAP's: of SIFT, many mutual neighbours are neighbours by chance."""
FEW_IMAGES = 20
"""Of a map, up to which queries are matched with all; else with as many alike."""
DATABASE = "database.db"


@dataclass(frozen=True, kw_only=True)
class QueryInputs:
    """The inputs of localization, besides the map.

    Attributes:
        query: dataset of the queries.
        pairs: list of queries and map images.
        features: folders of the features of both.
        matches: folders of their matches.
        keypoints_type: of features and matches; None takes the only one there is.
        failed: queries whose features could not be extracted.
        warnings: sentences on what was made for them.
    """

    query: Dataset
    pairs: Path
    features: tuple[Path, ...]
    matches: tuple[Path, ...]
    keypoints_type: str | None
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
) -> QueryInputs:
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
    given = [*features]
    if not _are_photographs(query):
        query = open_dataset(query)
        given.append(query.root)
    images = tuple(read_sparse_map(map_path, keypoints_type).images)
    # refuses before anything is made
    roots, type_name = _map_features(
        map_path, images, given, keypoints_type, place, options
    )
    dataset, notes = query_dataset(query, place, options)
    reports: list[Report] = []
    if not _any_features([*roots, dataset.root], type_name, dataset.image_names):
        if type_name != SIFT:
            raise DatasetError(
                f"{dataset.root}: found no features of type '{type_name}', expected "
                "those that the map has; extract them with its model: "
                f"kapture_r2d2_extract --kapture-root {dataset.root} --model MODEL "
                f"--keypoints-type {type_name}"
            )
        reports.append(
            extract.run(
                build_extractor(ExtractConfig(extractor=SiftConfig()), None),
                kapture_root=dataset,
                output=place / "query_features",
                keypoints_type=type_name,
                options=options,
            )
        )
        roots = (*roots, place / "query_features")
    roots = tuple(dict.fromkeys([*roots, dataset.root]))
    if pairs_file is None:
        pairs_file = place / "pairs.txt"
        few = len(images) <= FEW_IMAGES
        reports.append(
            pairs.run(
                PairsConfig(method="exhaustive" if few else "local"),
                mapping=_named(images, place),
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
    return QueryInputs(
        query=dataset,
        features=roots,
        keypoints_type=type_name,
        pairs=pairs_file,
        matches=(place / "matches",),
        failed=tuple(
            failure
            for report in reports
            for failure in report.failed
            if report.stage == "extract"
        ),
        warnings=(
            *notes,
            *(f"{one.stage}: {text}" for one in reports for text in one.warnings),
        ),
    )


def query_dataset(
    query: DatasetOrPath, place: Path, options: RunOptions
) -> tuple[Dataset, tuple[str, ...]]:
    """The queries; of a folder of photographs a dataset of links is made.

    Returns:
        The dataset, and sentences on files that are not in it.

    Raises:
        DatasetError: no dataset, and no photographs.
    """
    if isinstance(query, Dataset) or not _are_photographs(query):
        return open_dataset(query), ()
    made = write_image_folder_dataset(
        query,
        place / "query",
        FolderConfig(),
        query=query.resolve().name,
        replace=options.replaces,
    )
    dataset = open_dataset(made.root)
    failed = (*dataset.left_out, *made.failed)
    return dataclasses.replace(dataset, left_out=failed), made.warnings


def _are_photographs(query: DatasetOrPath) -> bool:
    """Whether queries are a folder of photographs, and not a dataset."""
    if isinstance(query, Dataset):
        return False
    return query.is_dir() and not (query / "sensors").exists()


def _map_features(
    map_path: Path,
    images: Sequence[str],
    features: Sequence[Path],
    keypoints_type: str | None,
    place: Path,
    options: RunOptions,
) -> tuple[tuple[Path, ...], str]:
    """Folders with the features of a map's images, and their type.

    Raises:
        DatasetError: there are none, with the commands that make some.
    """
    recorded = recorded_keypoints_type(map_path)
    # queries have no refined keypoints
    wanted = keypoints_type or (recorded and extracted_type(recorded))
    # the map of a pipeline is work/map, and its model work/map/sparse
    levels = 1 if recorded is None else 2
    above = [one / "features" for one in map_path.resolve().parents[:levels]]
    for roots in (features, *([*features, one] for one in above if one.is_dir())):
        there = [root for root in roots if find_feature_folders(root, "keypoints")]
        if there and _any_features(there, wanted, images):
            table = open_feature_table(there, "keypoints", wanted)
            return tuple(there), table.type_name
    database = _database_of(map_path)
    if database is None:
        raise DatasetError(
            f"{map_path}: found no descriptors of its {counted(len(images), 'image')}: "
            f"no --features of them, and no {DATABASE} in this folder or above it; "
            "give one of them, or map the images again with features of ours: "
            f"kapture_r2d2_pipeline --model-in {map_path} --images DIR --query DIR "
            "--output work"
        )
    report = imports.import_descriptors(
        database, images, place / "map_features", options
    )
    there = [root for root in features if find_feature_folders(root, "keypoints")]
    return (place / "map_features", *there), report.details["keypoints_type"]


def _database_of(map_path: Path) -> Path | None:
    """The database of a COLMAP model: in its folder, or in the next two above."""
    folder = map_path.resolve()
    places = [place / DATABASE for place in (folder, *folder.parents[:2])]
    return next((path for path in places if path.is_file()), None)


def _any_features(
    roots: Sequence[Path], type_name: str | None, images: Iterable[str]
) -> bool:
    """Whether some of the images have keypoints of a type."""
    folders = [one for root in roots for one in find_feature_folders(root, "keypoints")]
    if type_name is not None and type_name not in {one.type_name for one in folders}:
        return False
    if not folders:
        return False
    table = open_feature_table(roots, "keypoints", type_name)
    return any(name in table for name in images)


def _named(images: Sequence[str], root: Path) -> Dataset:
    """A dataset of names alone, as pairs need it."""
    data = kapture.Kapture(
        sensors=kapture.Sensors(), records_camera=kapture.RecordsCamera()
    )
    data.sensors["map"] = kapture.Camera("UNKNOWN_CAMERA", [1, 1])
    for timestamp, name in enumerate(images):
        data.records_camera[timestamp, "map"] = name
    return Dataset(root=root, data=data, image_names=tuple(images))
