"""The dataset that an import of a reconstruction makes."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import kapture
import kapture.io.csv as kcsv

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.geometry_log import LOG_NAME
from r2d2_kapture.io.colmap.image_folder import link_folder
from r2d2_kapture.io.kapture.dataset_files import DatasetFiles
from r2d2_kapture.io.kapture.feature_store import FeatureType
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.outputs.atomic import output_error, read_json
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.manifest import FILE_NAME, read_manifest
from r2d2_kapture.types import counted, some_names

REPORT_NAME = "import_report.json"
VERIFIED = "verified"
"""Folder of verified matches in the dataset, as kapture_r2d2_verify writes them."""
IMAGES = Path("sensors") / "records_data"
TABLES = [
    f"{name}.txt"
    for name in "sensors rigs records_camera records_gnss trajectories".split()
]
FEATURE_FILES = {
    "keypoints": ("**/*.kpt", "keypoints.txt", ORIGIN_NAME),
    "descriptors": ("**/*.desc", "descriptors.txt"),
    "matches": ("**/*.matches", LOG_NAME),
}
"""Patterns below the folder of a type."""
TYPE = "keypoints_type"


def dataset_contents(output: Path, keypoints_type: str | None = None) -> Contents:
    """What an import makes: not the features that others add to the dataset."""
    earlier = read_manifest(output / FILE_NAME)
    # the report knows the type that was chosen by default
    types = {keypoints_type, read_json(output / REPORT_NAME).get(TYPE)}
    if earlier is not None:
        types.add(earlier.settings.get(TYPE))
    features = [
        f"{root}reconstruction/{kind}/{glob.escape(name)}/{pattern}"
        for root in ("", f"{VERIFIED}/")
        for kind, patterns in FEATURE_FILES.items()
        for name in types
        if name
        for pattern in patterns
    ]
    tables = [f"sensors/{name}" for name in (*TABLES, ORIGIN_NAME, IMAGES.name)]
    points = [kcsv.CSV_FILENAMES[p] for p in (kapture.Points3d, kapture.Observations)]
    return Contents(
        what="dataset", files=(*features, *tables, *points, REPORT_NAME, FINISHED_NAME)
    )


def check_images(names: Iterable[str], images: Path | None) -> tuple[str, ...]:
    """The warning on images that are not in their folder.

    Raises:
        DatasetError: there is no such folder, or none of the images is in it.
    """
    names = sorted(names)
    if images is None:
        return (
            "without --images the dataset has no pixels: features cannot be extracted "
            "from it",
        )
    if not images.is_dir():
        what = "a file" if images.exists() else "no such folder"
        raise DatasetError(f"{images}: found {what}, expected the folder of the images")
    missing = [name for name in names if not (images / name).is_file()]
    if len(missing) == len(names):
        raise DatasetError(
            f"{images}: found none of the {counted(len(names), 'image')}, such as "
            f"'{names[0]}'; expected the folder that their names are relative to"
        )
    if not missing:
        return ()
    return (
        f"{len(missing)} of {len(names)} images are not in {images}: "
        f"{some_names(missing)}",
    )


def dataset_files(
    output: Path, keypoints_type: str, descriptor_columns: int = 1
) -> DatasetFiles:
    """The writer of a dataset whose features have one type.

    Raises:
        DatasetError: the type cannot be the name of a folder.
    """
    return DatasetFiles(
        root=output,
        features=FeatureType(
            root=output,
            keypoints_type=keypoints_type,
            descriptors_type=keypoints_type,
            descriptor_dim=descriptor_columns,
        ),
    )


def link_images(output: Path, images: Path | None) -> None:
    """Make records_data a link to the folder of images, if there is one.

    Raises:
        OutputError: the file system refused.
    """
    if images is None:
        return
    try:
        (output / IMAGES).parent.mkdir(exist_ok=True)
        link_folder(output / IMAGES, images)
    except OSError as error:
        raise output_error(output / IMAGES, error) from error
