"""The pairs that a run verifies, and those that cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.database import ReadKeypoints
from r2d2_kapture.io.features.reading import check_inside
from r2d2_kapture.io.kapture.camera_sizes import (
    CameraImage,
    dataset_images,
    unlike_sensors,
)
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.kapture.pairs import read_pairs, sorted_pairs
from r2d2_kapture.stages.unpaired import find_unpaired
from r2d2_kapture.stages.verify.pairs import Pair
from r2d2_kapture.types import Failure


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The pairs that can be verified.

    Attributes:
        pairs: that have keypoints and matches, in order of names.
        without_keypoints: images whose keypoints are missing or broken, or whose file
            has another size than the camera.
        failed: failures of these images, and of pairs without matches.
        unpaired: images without a pair.
    """

    pairs: list[Pair]
    without_keypoints: frozenset[str]
    failed: list[Failure]
    unpaired: tuple[str, ...]


def make_plan(
    dataset: Dataset,
    keypoints: FeatureTable,
    read_keypoints: ReadKeypoints,
    table: MatchTable,
    wanted: Sequence[Pair],
    total: int,
    strict: bool,
) -> Plan:
    """Sort the pairs by whether they can be verified, which only reads keypoints.

    Args:
        dataset: of the images.
        keypoints: of the images.
        read_keypoints: reads those of an image.
        table: of the matches.
        wanted: pairs to verify.
        total: number of pairs of all slices.
        strict: whether the first failure is raised.

    Raises:
        DatasetError, FeatureFormatError: no pair can be verified, or one, if strict.
    """
    unlike = unlike_sensors(dataset)
    if unlike and strict:
        raise DatasetError(next(iter(unlike.values())).to_text())
    paired = {name for pair in wanted for name in pair}
    images = {
        name: image
        for name, image in dataset_images(dataset).items()
        if name in paired or name in keypoints
    }
    unreadable = _unreadable(images, read_keypoints, strict) | unlike
    readable = [pair for pair in wanted if unreadable.keys().isdisjoint(pair)]
    matched = {pair for pair in readable if table.count(*pair) is not None}
    unmatched = [pair for pair in readable if pair not in matched]
    failed = list(unreadable.values())
    if unmatched:  # one failure for all, since there may be very many
        first, second = unmatched[0]
        name = f"{len(unmatched)} pairs"
        reason = (
            f"{name} have no matches, such as '{first}', '{second}'; run "
            "kapture_r2d2_match with the same list of pairs"
        )
        if strict or len(unmatched) == total:
            raise FeatureFormatError(reason)
        failed.append(Failure(name=name, reason=reason))
    return Plan(
        pairs=[pair for pair in readable if pair in matched],
        without_keypoints=frozenset(unreadable),
        failed=failed,
        unpaired=find_unpaired(dataset.image_names, wanted),
    )


def wanted_pairs(
    dataset: Dataset, table: MatchTable, source: Path | None
) -> list[Pair]:
    """The pairs of a list, or all with matches, in order of names.

    Raises:
        DatasetError: there are none, or of other images than those of the dataset.
    """
    names = frozenset(dataset.image_names)
    if source is None:  # the folder may contain matches of queries too
        listed = [pair for pair in table.pairs if names.issuperset(pair)]
    else:
        listed = [pair.names for pair in read_pairs(source, names)]
        unknown = {name for pair in listed for name in pair} - names
        if unknown:
            raise DatasetError(
                f"{source}: image '{min(unknown)}' is not in {dataset.root}; correct "
                "the list of pairs"
            )
    if not listed:
        raise DatasetError(
            f"{source or dataset.root}: found no pair of images to verify; list pairs "
            "with kapture_r2d2_pairs and match them with kapture_r2d2_match"
        )
    return sorted_pairs(listed, names)


def _unreadable(
    images: Mapping[str, CameraImage], read_keypoints: ReadKeypoints, strict: bool
) -> dict[str, Failure]:
    """Images without keypoints, or with broken or foreign ones."""
    failed = {}
    for name, image in images.items():
        try:
            check_inside(read_keypoints(name), image.size, f"'{name}'")
        except FeatureFormatError as error:
            if strict:
                raise
            failed[name] = Failure(name=name, reason=str(error))
    return failed
