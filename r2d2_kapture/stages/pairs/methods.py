"""The pair methods: each takes datasets and returns scored pairs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.pairs import PairMethod, PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.sparse_map import map_files, read_sparse_map
from r2d2_kapture.io.features.reading import check_metric
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_provenance import refuse_other_images
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.overlaps import hidden_features
from r2d2_kapture.io.kapture.pairs import ImagePair
from r2d2_kapture.io.kapture.rigs import rigs_above
from r2d2_kapture.io.kapture.tables import CameraRecord, image_records
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.matching.pair_selection import (
    Scores,
    Selection,
    best_partners,
    concatenate,
    cosine_blocks,
    covisibility_blocks,
    every_with_every,
    exhaustive,
    pose_blocks,
    sequential,
    without_same,
)
from r2d2_kapture.stages.pairs.retrieval import describe_images
from r2d2_kapture.types import Failure, FloatArray, some_names


@dataclass(frozen=True, kw_only=True)
class PairInputs:
    """The inputs of pair methods.

    Attributes:
        mapping: images that are paired with each other or with queries.
        query: images that are paired with mapping images; may be None.
        features: kapture datasets or folders of features.
        map_path: of an existing map.
        keypoints_type, descriptors_type, global_features_type: names; None takes the
            only existing one.
        described: kapture folder for computed global features.
        options: how to run.
    """

    mapping: Dataset
    query: Dataset | None
    features: tuple[Path, ...]
    map_path: Path | None
    keypoints_type: str | None
    descriptors_type: str | None
    global_features_type: str | None
    described: Path
    options: RunOptions

    @property
    def mapping_names(self) -> list[str]:
        """Mapping images by name."""
        return sorted(self.mapping.image_names)

    @property
    def first_names(self) -> list[str]:
        """Images to be paired, by name."""
        return sorted((self.query or self.mapping).image_names)


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Pairs of one method, in any order.

    Attributes:
        pairs: query first, where there are queries.
        failed: images without pairs because an input is missing.
        details, warnings: for the report.
    """

    pairs: list[ImagePair]
    failed: tuple[Failure, ...] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def method_files(config: PairsConfig, inputs: PairInputs) -> Iterator[Path]:
    """The features, or the map, that the method reads.

    Raises:
        DatasetError, FeatureFormatError: there are none.
    """
    names = sorted({*inputs.mapping_names, *inputs.first_names})
    if config.method == "global":
        yield from open_feature_table(
            inputs.features, "global_features", inputs.global_features_type
        ).files(names)
    if config.method == "local":
        features = open_local_features(
            inputs.features, inputs.keypoints_type, inputs.descriptors_type
        )
        yield from features.keypoints.files(names)
        yield from features.descriptors.files(names)
    if inputs.map_path is not None:
        yield from map_files(inputs.map_path)


def select_exhaustive(config: PairsConfig, inputs: PairInputs) -> Selected:
    """All pairs."""
    first, second = inputs.first_names, inputs.mapping_names
    if inputs.query is None:
        selection = exhaustive(len(first))
    else:
        selection = every_with_every(len(first), len(second))
    return Selected(pairs=named(selection, first, second))


def select_sequential(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Neighbours in time of each camera, and images of a rig at one time.

    If every image has its own camera, all images form one sequence.
    """
    names = inputs.mapping_names
    index = {name: i for i, name in enumerate(names)}
    records = image_records(inputs.mapping.data)
    sequences: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for timestamp, camera, name in records.values():
        sequences[camera].append((timestamp, index[name]))
    if all(len(sequence) == 1 for sequence in sequences.values()):
        sequences = {"": sum(sequences.values(), [])}
    parts = [
        sequential(
            np.array([i for _, i in sorted(sequence)]),
            overlap=config.overlap,
            quadratic=config.quadratic_overlap,
            loop=config.loop,
        )
        for sequence in sequences.values()
    ]
    parts += [
        sequential(np.array(taken), overlap=len(taken))
        for taken in taken_together(inputs.mapping, records.values(), index)
    ]
    selection = concatenate(parts)
    return Selected(
        pairs=named(selection, names, names), details={"sequences": len(sequences)}
    )


def taken_together(
    dataset: Dataset, records: Iterable[CameraRecord], index: Mapping[str, int]
) -> list[list[int]]:
    """Indices of the images that the cameras of one rig took at one time."""
    above = rigs_above(dataset.data)
    taken: dict[tuple[int, str], list[int]] = defaultdict(list)
    for timestamp, camera, name in records:
        if camera in above:
            outermost = list(above[camera])[-1]
            taken[timestamp, outermost].append(index[name])
    return [images for images in taken.values() if len(images) > 1]


def select_by_poses(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Nearby cameras with similar viewing directions."""
    poses2, failed = known_poses(inputs.mapping)
    poses1 = poses2
    if inputs.query is not None:
        poses1, failed_queries = known_poses(inputs.query)
        failed = failed | failed_queries
    blocks = pose_blocks(
        np.stack(list(poses1.values())),
        np.stack(list(poses2.values())),
        max_distance=config.max_distance,
        max_angle=config.max_angle,
    )
    return Selected(
        pairs=best_named(config, blocks, list(poses1), list(poses2)),
        failed=tuple(failed[name] for name in sorted(failed)),
    )


def known_poses(dataset: Dataset) -> tuple[dict[str, Any], dict[str, Failure]]:
    """(3, 4) cam_from_world of images with a pose; failures of the others.

    Raises:
        DatasetError: there is no pose.
    """
    poses = read_camera_poses(dataset)
    source = dataset.root / "sensors" / "trajectories.txt"
    if not poses.cam_from_world:
        raise DatasetError(
            f"{source}: found no image with a pose, as --method poses needs; choose "
            "another method"
        )
    return (
        {name: pose.matrix() for name, pose in poses.cam_from_world.items()},
        {
            name: Failure(
                name=name, reason=f"{source}: has no complete pose of '{name}'"
            )
            for name in poses.without_pose
        },
    )


def select_by_covisibility(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images that observe common points of a map."""
    if inputs.map_path is None:
        raise ConfigError("--method covisibility: found no --map, expected one")
    sparse_map = read_sparse_map(inputs.map_path, inputs.keypoints_type)
    names = [name for name in inputs.mapping_names if name in sparse_map.images]
    if not names:
        raise DatasetError(
            f"{inputs.map_path}: found none of the {len(inputs.mapping_names)} images "
            f"of {inputs.mapping.root}, expected a map of them"
        )
    blocks = covisibility_blocks([sparse_map.images[name].point_rows for name in names])
    return Selected(
        pairs=best_named(config, blocks, names, names),
        failed=tuple(
            Failure(name=name, reason=f"{inputs.map_path}: does not contain '{name}'")
            for name in inputs.mapping_names
            if name not in sparse_map.images
        ),
    )


def select_by_global_features(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with similar global features."""
    table = open_feature_table(
        inputs.features, "global_features", inputs.global_features_type
    )
    for folder in table.folders:
        check_metric(folder.metric, str(folder.path / "global_features.txt"))
    return similar_images(config, inputs, table)


def select_by_local_features(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with similar aggregated local features."""
    features = open_local_features(
        inputs.features, inputs.keypoints_type, inputs.descriptors_type
    )
    for dataset in (inputs.mapping, inputs.query):
        if dataset is not None:
            refuse_other_images(features.keypoints, dataset)
    described = describe_images(
        config,
        features=features,
        mapping=inputs.mapping_names,
        query=[] if inputs.query is None else inputs.first_names,
        output=inputs.described,
        options=inputs.options,
    )
    table = open_feature_table(
        [inputs.described], "global_features", described.type_name
    )
    failed = {failure.name for failure in described.failed}
    selected = similar_images(config, inputs, table, leave_out=failed)
    return Selected(
        pairs=selected.pairs,
        failed=(*described.failed, *selected.failed),
        warnings=(*hidden_features(features.keypoints), *selected.warnings),
        details=selected.details
        | {
            "images_described": described.done,
            "images_described_before": described.skipped,
            "global_features": str(table.folders[0].path),
        },
    )


def similar_images(
    config: PairsConfig,
    inputs: PairInputs,
    table: FeatureTable,
    leave_out: frozenset[str] | set[str] = frozenset(),
) -> Selected:
    """The most similar images by the cosine of their global features.

    Args:
        config: number and least similarity of partners.
        inputs: the images.
        table: their global features.
        leave_out: images known to have no global features.
    """
    rows: dict[str, FloatArray] = {}
    failed = []
    for name in sorted({*inputs.mapping_names, *inputs.first_names} - leave_out):
        try:
            rows[name] = read_row(table, name)
        except FeatureFormatError as error:
            failed.append(Failure(name=name, reason=str(error)))
    first = [name for name in inputs.first_names if name in rows]
    second = [name for name in inputs.mapping_names if name in rows]
    pairs: list[ImagePair] = []
    if first and second:
        blocks = cosine_blocks(
            np.stack([rows[name] for name in first]),
            np.stack([rows[name] for name in second]),
        )
        pairs = best_named(config, blocks, first, second)
    zeros = [name for name, row in rows.items() if not row.any()]
    return Selected(
        pairs=pairs,
        failed=tuple(failed),
        details={
            "global_features_type": table.type_name,
            "images_of_zeros": len(zeros),
        },
        warnings=(*hidden_features(table), *_zeros_warning(zeros)),
    )


def _zeros_warning(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{len(names)} images have global features of zeros, as images without "
        f"keypoints: {some_names(names)}; their pairs are arbitrary",
    )


def read_row(table: FeatureTable, name: str) -> FloatArray:
    """(D,) global feature of an image.

    Raises:
        FeatureFormatError: it is missing, or has not exactly one row.
    """
    rows = table.read(name)
    if len(rows) != 1:
        raise FeatureFormatError(
            f"'{name}': found {len(rows)} rows of global features "
            f"'{table.type_name}', expected 1; extract it again"
        )
    return np.asarray(rows[0])


def select_nothing(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Only the pairs of lists."""
    return Selected(pairs=[])


def best_named(
    config: PairsConfig,
    blocks: Iterable[Scores],
    first: Sequence[str],
    second: Sequence[str],
) -> list[ImagePair]:
    """The best partners of each image, except itself."""
    column = {name: i for i, name in enumerate(second)}
    same = np.array([column.get(name, -1) for name in first], np.int64)
    selection = best_partners(
        without_same(blocks, same), top_k=config.partners, min_score=config.min_score
    )
    return named(selection, first, second)


def named(
    selection: Selection, first: Sequence[str], second: Sequence[str]
) -> list[ImagePair]:
    """Pairs of names, without pairs of an image with itself."""
    return [
        ImagePair(image1=first[i], image2=second[j], score=score)
        for i, j, score in zip(
            selection.first.tolist(),
            selection.second.tolist(),
            selection.scores.tolist(),
        )
        if first[i] != second[j]
    ]


PAIR_METHODS: Mapping[PairMethod, Callable[[PairsConfig, PairInputs], Selected]] = {
    "exhaustive": select_exhaustive,
    "sequential": select_sequential,
    "poses": select_by_poses,
    "covisibility": select_by_covisibility,
    "global": select_by_global_features,
    "local": select_by_local_features,
    "merge": select_nothing,
}
