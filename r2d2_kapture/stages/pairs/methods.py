"""The pair methods: each takes datasets and returns scored pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from r2d2_kapture.config.pairs import PairMethod, PairsConfig
from r2d2_kapture.io.colmap.sparse_map import map_files
from r2d2_kapture.io.kapture.pairs import PairList
from r2d2_kapture.stages.pairs.fusion import select_by_fusion
from r2d2_kapture.stages.pairs.geometry import (
    select_by_covisibility,
    select_by_gnss,
    select_by_poses,
)
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected, every_pair
from r2d2_kapture.stages.pairs.lowres import select_by_low_resolution
from r2d2_kapture.stages.pairs.sequences import select_sequential
from r2d2_kapture.stages.pairs.similarity import (
    global_features,
    local_features,
    select_by_global_features,
    select_by_local_features,
)


def method_files(config: PairsConfig, inputs: PairInputs) -> Iterator[Path | str]:
    """The features, or the map, that the method reads.

    Raises:
        DatasetError, FeatureFormatError: there are none.
    """
    names = sorted({*inputs.mapping_names, *inputs.first_names})
    if config.similarity == "global":
        yield from global_features(inputs).files(names)
    if config.similarity == "local":
        features = local_features(inputs)
        yield from features.keypoints.files(names)
        yield from features.descriptors.files(names)
    if inputs.map_path is not None:
        yield from map_files(inputs.map_path)


def select_exhaustive(config: PairsConfig, inputs: PairInputs) -> Selected:
    """All pairs."""
    return Selected(pairs=every_pair(config, inputs))


def select_nothing(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Only the pairs of lists."""
    return Selected(pairs=PairList.of([]))


PAIR_METHODS: Mapping[PairMethod, Callable[[PairsConfig, PairInputs], Selected]] = {
    "exhaustive": select_exhaustive,
    "sequential": select_sequential,
    "poses": select_by_poses,
    "gnss": select_by_gnss,
    "covisibility": select_by_covisibility,
    "global": select_by_global_features,
    "local": select_by_local_features,
    "lowres": select_by_low_resolution,
    "fuse": select_by_fusion,
    "merge": select_nothing,
}
