"""Images with similar global features: existing ones, or aggregated from local ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
from r2d2_kapture.io.kapture.pairs import PairList
from r2d2_kapture.matching.pair_selection import unit_rows
from r2d2_kapture.matching.similar_rows import Apart, most_similar
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected, named, same_places
from r2d2_kapture.stages.pairs.retrieval import describe_images
from r2d2_kapture.types import Failure, FloatArray, some_names

GB = 1e9
"""Bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageRows:
    """Global features of images.

    Attributes:
        places: of each image that has one, by name in order: its row.
        table: where they are.
        held: (N, D) all of them, of unit norm; None where they need too much memory.
        failed: images without.
        details, warnings: for the report.
    """

    places: Mapping[str, int]
    table: FeatureTable
    held: FloatArray | None
    failed: tuple[Failure, ...]
    details: Mapping[str, Any]
    warnings: tuple[str, ...]

    def of(self, names: Sequence[str]) -> NamedRows:
        """Those of images that have one."""
        return NamedRows(names=names, of_images=self)


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedRows:
    """Global features of some images, of unit norm, which are read in blocks.

    Attributes:
        names: of the images.
        of_images: these, and others.
    """

    names: Sequence[str]
    of_images: ImageRows

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def dim(self) -> int:
        """Values of a feature."""
        return self.of_images.table.dsize

    def read(self, rows: slice) -> FloatArray:
        """(B, dim) float32 of consecutive images.

        Raises:
            FeatureFormatError: see read_row.
        """
        names, held = self.names[rows], self.of_images.held
        if held is not None:
            return held[[self.of_images.places[name] for name in names]]
        found = np.empty((len(names), self.dim), np.float32)
        for row, name in zip(found, names):
            row[:] = read_row(self.of_images.table, name)
        return unit_rows(found)


def select_by_global_features(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with similar global features."""
    return similar_images(config, inputs, read_global_features(config, inputs))


def select_by_local_features(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with similar aggregated local features."""
    return similar_images(config, inputs, aggregate_local_features(config, inputs))


def image_rows(by: Similarity, config: PairsConfig, inputs: PairInputs) -> ImageRows:
    """What images are compared by."""
    if by == "global":
        return read_global_features(config, inputs)
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


def read_global_features(config: PairsConfig, inputs: PairInputs) -> ImageRows:
    """Existing global features.

    Raises:
        DatasetError: there are none, or of several types.
        FeatureFormatError: they are compared by another metric than L2 or cosine.
    """
    table = global_features(inputs)
    for folder in table.folders:
        check_metric(folder.metric, str(folder.path / "global_features.txt"))
    return read_rows(table, inputs, config.memory_gb)


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
        store=inputs.store,
    )
    table = open_feature_table(
        [inputs.described], "global_features", described.type_name
    )
    without = {failure.name for failure in described.failed}
    found = read_rows(table, inputs, config.memory_gb, without)
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
    table: FeatureTable,
    inputs: PairInputs,
    memory_gb: float,
    leave_out: Collection[str] = (),
) -> ImageRows:
    """The global features of all images.

    Args:
        table: of global features.
        inputs: the images.
        memory_gb: half of it for the features; where they need more, they are read
            again when they are needed.
        leave_out: images known to have none.
    """
    names = sorted({*inputs.mapping_names, *inputs.first_names}.difference(leave_out))
    fits = 4 * len(names) * table.dsize <= memory_gb * GB / 2
    held = np.empty((len(names), table.dsize), np.float32) if fits else None
    places: dict[str, int] = {}
    failed, zeros = [], []
    for name in names:
        try:
            row = read_row(table, name)
        except FeatureFormatError as error:
            failed.append(Failure(name=name, reason=str(error)))
            continue
        if not row.any():
            zeros.append(name)
        if held is not None:
            held[len(places)] = unit_rows(row[None])[0]
        places[name] = len(places)
    return ImageRows(
        places=places,
        table=table,
        held=held,
        failed=tuple(failed),
        details={
            "global_features_type": table.type_name,
            "images_of_zeros": len(zeros),
        },
        warnings=(*hidden_features(table), *_zeros_warning(zeros)),
    )


def most_similar_images(
    config: PairsConfig,
    described: ImageRows,
    first: Sequence[str],
    second: Sequence[str],
    apart: Apart | None = None,
) -> PairList:
    """The most similar others of each image, by the cosine of their global features.

    Args:
        config: numbers of pairs, and the memory.
        described: the features.
        first, second: images that have one, and those that they are paired with.
        apart: pairs that do not count; None for those of an image with itself.
    """
    same = same_places(first, second)

    def themselves(rows: slice, others: slice) -> npt.NDArray[np.bool_]:
        columns = np.arange(others.start, others.stop)
        return np.asarray(same[rows, None] == columns)

    selection = most_similar(
        described.of(first),
        described.of(second),
        top_k=config.partners,
        min_score=config.min_score,
        apart=apart or themselves,
        memory=config.memory_gb * GB,
    )
    return named(selection, first, second)


def similar_images(
    config: PairsConfig, inputs: PairInputs, described: ImageRows
) -> Selected:
    """The most similar images by the cosine of their global features."""
    first = [name for name in inputs.first_names if name in described.places]
    second = [name for name in inputs.mapping_names if name in described.places]
    return Selected(
        pairs=most_similar_images(config, described, first, second),
        failed=described.failed,
        details=dict(described.details),
        warnings=described.warnings,
    )


def _zeros_warning(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{len(names)} images have global features of zeros, as images without "
        f"keypoints: {some_names(names)}; they are similar to none",
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
