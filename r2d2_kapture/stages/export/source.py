"""What is exported: a dataset with the keypoints of its images."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2d2_kapture.config.origins import OriginConfig
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.features.reading import check_inside
from r2d2_kapture.io.kapture.camera_sizes import dataset_images, unlike_sensors
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.feature_provenance import refuse_other_images
from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.io.kapture.match_store import matches_folder
from r2d2_kapture.io.kapture.pixel_origins import (
    FoundOrigin,
    find_camera_origin,
    origins_text,
    place_keypoints,
)
from r2d2_kapture.io.kapture.refined_features import with_extracted
from r2d2_kapture.io.names import shown
from r2d2_kapture.types import Failure, some_names

NO_KEYPOINTS = FeatureTable(kind="keypoints", type_name="none", dsize=2, folders=())
"""Of a dataset of cameras, images and poses alone."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset, and where its features are.

    Attributes:
        dataset: its images.
        cameras: where their principal points count from.
        keypoints: read with (0, 0) at the centre of the first pixel.
        roots: kapture folders of features and matches.
        names: of the images with keypoints, in order of time.
        settings: of the user, on which every format depends.
        warnings: on what of the keypoints is not certain.
    """

    dataset: Dataset
    cameras: FoundOrigin
    keypoints: FeatureTable
    roots: tuple[Path, ...]
    names: tuple[str, ...]
    settings: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def files(self) -> Iterator[Path | str]:
        """Those that are read for every format."""
        yield from self.dataset.files
        yield from self.keypoints.files(self.names)

    def matches_type(self, root: Path) -> str:
        """The type of the keypoints whose matches a folder has: these, or those that
        they were refined from."""
        names = [self.keypoints.type_name]
        names += [folder.type_name for folder in self.keypoints.folders[-1:]]
        there = [name for name in names if matches_folder(root, name).is_dir()]
        return (there or names)[0]

    @property
    def paths(self) -> dict[str, Path]:
        """Where the pixels of the images with keypoints are, by name."""
        return {name: self.dataset.image_path(name) for name in self.names}

    @property
    def image_count(self) -> int:
        """Images with keypoints; of a dataset without any, all."""
        without = not self.keypoints.folders
        return len(self.dataset.image_names if without else self.names)

    @property
    def details(self) -> dict[str, object]:
        """Of the report."""
        return {
            "keypoints_type": self.keypoints.type_name,
            "images_without_features": len(self.dataset.image_names) - len(self.names),
            "keypoint_origin": origins_text(self.keypoints),
        }


def open_source(
    root: Path,
    *,
    roots: Sequence[Path] = (),
    of_others: Container[str] = (),
    keypoints_needed: bool = True,
    keypoints_type: str | None,
    origins: OriginConfig,
) -> Source:
    """Open a dataset that holds keypoints.

    Args:
        root: of the dataset.
        roots: where its features are; by default in the dataset.
        of_others: images of other datasets that have features there.
        keypoints_needed: refuse a dataset without any.
        keypoints_type: None takes the only one there is.
        origins: as the user gives them.

    Raises:
        DatasetError: the dataset or its keypoints cannot be used.
    """
    dataset = open_dataset(root)
    cameras = find_camera_origin(dataset, origins.camera_origin)
    places = roots or [root]
    lacking = _lack_keypoints(places)
    if lacking and keypoints_needed and [*places] == [root]:
        raise DatasetError(
            f"{root}: found no keypoints, expected local features in the dataset; if a "
            "pipeline extracted them, export its output folder with --pipeline WORK "
            f"alone; else run kapture_r2d2_extract --kapture-root {root}"
        )
    if lacking and not keypoints_needed and keypoints_type is None:
        table = NO_KEYPOINTS
    else:
        table = open_feature_table(places, "keypoints", keypoints_type)
        table = with_extracted(table, places)
    keypoints, warnings = place_keypoints(
        table, origins.keypoint_origin, dataset, cameras
    )
    refuse_other_images(keypoints, dataset)
    return Source(
        dataset=dataset,
        cameras=cameras,
        keypoints=keypoints,
        roots=tuple(roots or [root]),
        names=tuple(name for name in dataset.image_names if name in keypoints),
        settings={
            "keypoints_type": keypoints.type_name,
            "keypoint_origin": origins.keypoint_origin,
            "camera_origin": origins.camera_origin,
        },
        warnings=(
            *warnings,
            *_unlike_names(
                dataset.image_names,
                (name for name in keypoints.image_names if name not in of_others),
            ),
        ),
    )


def _lack_keypoints(roots: Iterable[Path]) -> bool:
    return not any(find_feature_folders(root, "keypoints") for root in roots)


def unusable_images(source: Source) -> dict[str, Failure]:
    """Images whose camera or keypoints belong to a picture of another size, by name."""
    failed = unlike_sensors(source.dataset, source.names)
    rest = set(source.names) - failed.keys()
    for name, image in dataset_images(source.dataset, rest).items():
        rows = source.keypoints.read(name)
        try:
            check_inside(rows, image.size, f"'{name}'")
        except FeatureFormatError as error:
            failed[name] = Failure(name=name, reason=str(error))
    return failed


def _unlike_names(images: Iterable[str], featured: Iterable[str]) -> Iterator[str]:
    """The warnings on images without features and features without images."""
    there, recorded = set(featured), set(images)
    if not there:
        yield "there are no keypoints: cameras, images and poses are exported alone"
        return
    found = (
        ("images have no features", "they are not exported", recorded - there),
        (
            "images have features but are not in records_camera.txt",
            "their features are not exported",
            there - recorded,
        ),
    )
    for what, result, names in found:
        if names:
            listed = some_names(map(shown, sorted(names)))
            yield f"{len(names)} {what}: {listed}; {result}"
