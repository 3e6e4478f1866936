"""Keypoints and descriptors of a kapture dataset: files, tar archives or shards.

kapture 1.1 (github.com/naver/kapture, kapture_format.adoc): ``.kpt`` and ``.desc`` are
raw little-endian rows without a header; keypoints.txt and descriptors.txt next to them
hold type and width. An image is complete when both files exist and agree on the count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name, is_described
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.names import broken_by, shown
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.io.outputs.image_records import (
    RECORDS_NAME,
    open_records,
    stored_records,
)
from r2d2_kapture.io.outputs.ledger import (
    Contents,
    is_made_with,
    open_ledger,
)
from r2d2_kapture.io.outputs.manifest import FILE_NAME, Manifest
from r2d2_kapture.io.outputs.orientations import ORIENTATIONS_NAME
from r2d2_kapture.io.outputs.recorded_features import (
    FeatureWriter,
    StoredFeatures,
)
from r2d2_kapture.io.stores.reading import (
    StoredItems,
    file_count,
    open_items,
    other_layout,
)
from r2d2_kapture.io.stores.shards import SHARD_FILES
from r2d2_kapture.io.stores.writing import ItemWriter, open_item_writer
from r2d2_kapture.types import LocalFeatures

KEYPOINT_BYTES = 3 * np.dtype(np.float32).itemsize
SUFFIXES = {"keypoints": ".kpt", "descriptors": ".desc"}


@dataclass(frozen=True, kw_only=True)
class FeatureType:
    """Where the features of one kind of extraction live in a dataset.

    Attributes:
        root: of the dataset.
        keypoints_type: name of the keypoints' folder.
        descriptors_type: name of the descriptors' folder.
        descriptor_dim: values of a descriptor.
        descriptor_dtype: of each value; float16, which kapture does not have, is
            stored as float32.
        store: layout of the rows: files, keypoints.tar and descriptors.tar, or shards.
    """

    root: Path
    keypoints_type: str
    descriptors_type: str
    descriptor_dim: int
    descriptor_dtype: str = "float32"
    store: Store = "files"

    def __post_init__(self) -> None:
        for name in (self.keypoints_type, self.descriptors_type):
            if (
                name != name.strip()
                or broken_by(name) is not None
                or name[:1] in ("", ".", "#")
                or any(character in name for character in "/\\,")
            ):
                raise DatasetError(
                    f"feature type '{shown(name)}': expected a folder "
                    "name without / \\ , control characters or spaces around it, "
                    "that does not begin with . or #"
                )

    def folder(self, kind: str) -> Path:
        """The folder of ``keypoints`` or ``descriptors``."""
        types = {
            "keypoints": self.keypoints_type,
            "descriptors": self.descriptors_type,
        }
        return self.root / "reconstruction" / kind / types[kind]

    def other_layout(self, kind: str) -> str | None:
        """What is there instead of rows in the layout; None where nothing is."""
        return other_layout(
            self.folder(kind), self.store, f"{kind}.tar", SUFFIXES[kind]
        )

    def file_count(self) -> dict[str, int]:
        """How many files hold all rows, for a report; nothing where it is two each."""
        folders = {f"{kind}.tar": folder for kind, folder in self.folders.items()}
        return file_count(self.store, folders)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values in the files."""
        return np.dtype("u1" if self.descriptor_dtype == "uint8" else "<f4")

    @property
    def row_bytes(self) -> int:
        """Bytes of a descriptor."""
        return self.descriptor_dim * self.dtype.itemsize

    def descriptions(self) -> Iterator[Path]:
        """What is beside the rows of images: how they were made, and of what."""
        for kind, folder in self.folders.items():
            names = (FILE_NAME, RECORDS_NAME, f"{kind}.txt")
            yield from (folder / name for name in names)

    @property
    def folders(self) -> dict[str, Path]:
        return {kind: self.folder(kind) for kind in SUFFIXES}


def feature_contents(kind: str) -> Contents:
    """What extraction makes in the folder of ``keypoints`` or ``descriptors``."""
    return Contents(
        what=kind,
        files=(
            *(f"**/*{SUFFIXES[kind]}", f"{kind}.txt", f"{kind}.tar", *SHARD_FILES),
            *(RECORDS_NAME, ORIENTATIONS_NAME, ORIGIN_NAME),
            *("extract_report.json", "extract_config.yaml"),
        ),
        flag=f"--{kind}-type or --output",
        by_name=True,
    )


def feature_files(feature_type: FeatureType, images: Iterable[str]) -> Iterator[str]:
    """Where the rows of images are, or would be, found when it is asked for.

    Raises:
        DatasetError: an archive or a shard is unreadable or unsafe.
    """
    for kind, folder in feature_type.folders.items():
        items = open_items(folder, f"{kind}.tar", SUFFIXES[kind])
        yield from items.files(f"{image}{SUFFIXES[kind]}" for image in images)


@contextmanager
def open_feature_writer(
    feature_type: FeatureType,
    manifest: Manifest,
    options: RunOptions = RunOptions(),
    fill: Callable[[], None] = lambda: None,
) -> Iterator[FeatureWriter]:
    """Open a feature type for one set of weights and settings, and write to it.

    Args:
        feature_type: where to write.
        manifest: what the features are made with.
        options: ``force`` removes existing features; see open_ledger.
        fill: adds features that were made elsewhere, to the folders that are locked.

    Raises:
        OutputError: the type holds features made otherwise, another run is writing it,
            or the folder cannot be written.
    """
    folders = feature_type.folders
    with ExitStack() as stack:
        for kind, folder in folders.items():
            made = _manifest_of(kind, feature_type, manifest)
            contents, anew = feature_contents(kind), options.force
            found = feature_type.other_layout(kind)
            if is_made_with(folder, contents, made, options) and found is not None:
                if not options.replaces:
                    raise contents.refusal(folder, found)
                anew = True
            stack.enter_context(open_ledger(folder, contents, made, options, anew=anew))
        _write_configs(feature_type)
        fill()
        records = tuple(stack.enter_context(open_records(f)) for f in folders.values())
        items = {
            kind: stack.enter_context(
                open_item_writer(
                    folder, feature_type.store, f"{kind}.tar", SUFFIXES[kind]
                )
            )
            for kind, folder in folders.items()
        }
        rows = _Rows(feature_type=feature_type, items=items)
        yield FeatureWriter(rows=rows, records=records)


def stored_features(
    feature_type: FeatureType, manifest: Manifest, options: RunOptions
) -> StoredFeatures | None:
    """The features of a type, which another run may write; None without any.

    Raises:
        OutputError: the type holds features made otherwise, unless these are replaced.
    """
    folders = feature_type.folders
    for kind, folder in folders.items():
        made = _manifest_of(kind, feature_type, manifest)
        contents = feature_contents(kind)
        if options.force or not is_made_with(folder, contents, made, options):
            return None
        found = feature_type.other_layout(kind)
        if found is not None:
            raise contents.refusal(folder, found)
    items = {
        kind: _Stored(items=open_items(folder, f"{kind}.tar", SUFFIXES[kind]))
        for kind, folder in folders.items()
    }
    rows = _Rows(feature_type=feature_type, items=items)
    records = tuple(map(stored_records, folders.values()))
    return StoredFeatures(store=FeatureWriter(rows=rows, records=records))


def _manifest_of(kind: str, feature_type: FeatureType, manifest: Manifest) -> Manifest:
    """Descriptors belong to one type of keypoints."""
    if kind == "keypoints":
        return manifest
    settings = {**manifest.settings, "keypoints_type": feature_type.keypoints_type}
    return dataclasses.replace(manifest, settings=settings)


def _write_configs(feature_type: FeatureType) -> None:
    """Describe the rows for kapture: keypoints.txt and descriptors.txt."""
    name = feature_type.keypoints_type
    folders = feature_type.folders
    keypoints = kapture.Keypoints(name, np.float32, 3)
    descriptors = kapture.Descriptors(
        feature_type.descriptors_type,
        feature_type.dtype.type,
        feature_type.descriptor_dim,
        name,
        "L2",
    )
    config = folders["keypoints"] / "keypoints.txt"
    if not is_described(config, name, "float32", "3"):
        with atomic_path(config) as path:
            kcsv.keypoints_to_file(str(path), keypoints)
    config = folders["descriptors"] / "descriptors.txt"
    dsize = str(feature_type.descriptor_dim)
    dtype = feature_type.dtype.name
    fields = (feature_type.descriptors_type, dtype, dsize, name, "L2")
    if not is_described(config, *fields):
        with atomic_path(config) as path:
            kcsv.descriptors_to_file(str(path), descriptors)


def _rows(features: LocalFeatures, dtype: np.dtype[Any]) -> dict[str, bytes]:
    return {
        "keypoints": features.keypoints_with_scale.astype("<f4").tobytes(),
        "descriptors": features.descriptors.astype(dtype).tobytes(),
    }


def _agree(keypoint_bytes: int, descriptor_bytes: int, row_bytes: int) -> bool:
    count, rest = divmod(keypoint_bytes, KEYPOINT_BYTES)
    return rest == 0 and descriptor_bytes == count * row_bytes


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Items that are only looked at, as an ItemWriter."""

    items: StoredItems

    def size(self, name: str) -> int | None:
        found = self.items.find(name)
        return None if found is None else found.size

    def written_ns(self, name: str) -> int:
        found = self.items.find(name)
        return 0 if found is None else found.path.stat().st_mtime_ns

    def write(self, name: str, data: bytes) -> None:
        raise NotImplementedError(name)

    def names(self) -> Iterator[str]:
        return self.items.names()

    def remove(self, names: Collection[str]) -> None:
        """Leave them."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of images; an image counts once its last byte is in both folders."""

    feature_type: FeatureType
    items: Mapping[str, ItemWriter]

    def _names(self, image: str) -> Iterator[tuple[ItemWriter, str]]:
        for kind, suffix in SUFFIXES.items():
            yield self.items[kind], image + suffix

    def is_complete(self, image: str) -> bool:
        keypoints, descriptors = (i.size(name) for i, name in self._names(image))
        if keypoints is None or descriptors is None:
            return False
        return _agree(keypoints, descriptors, self.feature_type.row_bytes)

    def written_ns(self, image: str) -> int:
        return min(items.written_ns(name) for items, name in self._names(image))

    def remove(self, image: str) -> None:
        """Of an archive leave the members, of which the last of a name will count."""
        if self.feature_type.store != "tar":
            for items, name in self._names(image):
                items.remove([name])

    def write(self, image: str, features: LocalFeatures) -> None:
        rows = _rows(features, self.feature_type.dtype)
        for kind, suffix in SUFFIXES.items():
            check_relative_name(image, self.feature_type.folder(kind))
            self.items[kind].write(image + suffix, rows[kind])
