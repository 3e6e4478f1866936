"""Images with similar global features: existing ones, or aggregated from local ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r2d2_kapture.config.pairs import PairsConfig, Similarity
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.reading import check_metric
from r2d2_kapture.io.kapture.feature_provenance import refuse_other_images
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.overlaps import hidden_features
from r2d2_kapture.io.kapture.pairs import ImagePair
from r2d2_kapture.matching.pair_selection import cosine_blocks
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected, best_named
from r2d2_kapture.stages.pairs.retrieval import describe_images
from r2d2_kapture.types import Failure, FloatArray, some_names


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageRows:
    """Global features of images.

    Attributes:
        rows: (D,) of each image that has one, by name in order.
        failed: images without.
        details, warnings: for the report.
    """

    rows: Mapping[str, FloatArray]
    failed: tuple[Failure, ...]
    details: Mapping[str, Any]
    warnings: tuple[str, ...]

    def of(self, names: Sequence[str]) -> FloatArray:
        """(N, D) of images that have one."""
        return np.stack([self.rows[name] for name in names])


def select_by_global_features(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with similar global features."""
    return similar_images(config, inputs, read_global_features(inputs))


def select_by_local_features(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with similar aggregated local features."""
    return similar_images(config, inputs, aggregate_local_features(config, inputs))


def image_rows(by: Similarity, config: PairsConfig, inputs: PairInputs) -> ImageRows:
    """What images are compared by."""
    if by == "global":
        return read_global_features(inputs)
    return aggregate_local_features(config, inputs)


def global_features(inputs: PairInputs) -> FeatureTable:
    """The global features of the inputs."""
    return open_feature_table(
        inputs.features, "global_features", inputs.global_features_type
    )


def local_features(inputs: PairInputs) -> LocalFeatureTables:
    """The local features of the inputs."""
    return open_local_features(
        inputs.features, inputs.keypoints_type, inputs.descriptors_type
    )


def read_global_features(inputs: PairInputs) -> ImageRows:
    """Existing global features.

    Raises:
        DatasetError: there are none, or of several types.
        FeatureFormatError: they are compared by another metric than L2 or cosine.
    """
    table = global_features(inputs)
    for folder in table.folders:
        check_metric(folder.metric, str(folder.path / "global_features.txt"))
    return read_rows(table, inputs)


def aggregate_local_features(config: PairsConfig, inputs: PairInputs) -> ImageRows:
    """Global features aggregated from local ones, which are kept.

    Raises:
        DatasetError, FeatureFormatError, OutputError: see describe_images.
    """
    features = local_features(inputs)
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
    found = read_rows(table, inputs, {failure.name for failure in described.failed})
    return dataclasses.replace(
        found,
        failed=(*described.failed, *found.failed),
        warnings=(*hidden_features(features.keypoints), *found.warnings),
        details={
            **found.details,
            "images_described": described.done,
            "images_described_before": described.skipped,
            "global_features": str(table.folders[0].path),
        },
    )


def read_rows(
    table: FeatureTable, inputs: PairInputs, leave_out: Collection[str] = ()
) -> ImageRows:
    """The global features of all images.

    Args:
        table: of global features.
        inputs: the images.
        leave_out: images known to have none.
    """
    rows: dict[str, FloatArray] = {}
    failed = []
    for name in sorted(
        {*inputs.mapping_names, *inputs.first_names}.difference(leave_out)
    ):
        try:
            rows[name] = read_row(table, name)
        except FeatureFormatError as error:
            failed.append(Failure(name=name, reason=str(error)))
    zeros = [name for name, row in rows.items() if not row.any()]
    return ImageRows(
        rows=rows,
        failed=tuple(failed),
        details={
            "global_features_type": table.type_name,
            "images_of_zeros": len(zeros),
        },
        warnings=(*hidden_features(table), *_zeros_warning(zeros)),
    )


def similar_images(
    config: PairsConfig, inputs: PairInputs, described: ImageRows
) -> Selected:
    """The most similar images by the cosine of their global features."""
    first = [name for name in inputs.first_names if name in described.rows]
    second = [name for name in inputs.mapping_names if name in described.rows]
    pairs: list[ImagePair] = []
    if first and second:
        blocks = cosine_blocks(described.of(first), described.of(second))
        pairs = best_named(config, blocks, first, second)
    return Selected(
        pairs=pairs,
        failed=described.failed,
        details=dict(described.details),
        warnings=described.warnings,
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
