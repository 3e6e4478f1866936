"""Keypoints and descriptors of a kapture dataset: folders or tar archives.

kapture 1.1 (github.com/naver/kapture, kapture_format.adoc): ``.kpt`` and ``.desc`` are
raw little-endian rows without a header; keypoints.txt and descriptors.txt next to them
hold type and width. An image is complete when both files exist and agree on the count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name, is_described
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.names import broken_by, shown
from r2d2_kapture.io.outputs.atomic import atomic_path, remove_file
from r2d2_kapture.io.outputs.growing_archive import GrowingArchive
from r2d2_kapture.io.outputs.image_records import (
    RECORDS_NAME,
    open_records,
    stored_records,
)
from r2d2_kapture.io.outputs.ledger import (
    Contents,
    is_made_with,
    open_ledger,
    write_item,
)
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.orientations import ORIENTATIONS_NAME
from r2d2_kapture.io.outputs.recorded_features import (
    FeatureWriter,
    RowStore,
    StoredFeatures,
)
from r2d2_kapture.io.stores.reading import index_archive
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
        tar: whether rows go to keypoints.tar and descriptors.tar.
    """

    root: Path
    keypoints_type: str
    descriptors_type: str
    descriptor_dim: int
    tar: bool
    descriptor_dtype: str = "float32"

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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values in the files."""
        return np.dtype("u1" if self.descriptor_dtype == "uint8" else "<f4")

    @property
    def row_bytes(self) -> int:
        """Bytes of a descriptor."""
        return self.descriptor_dim * self.dtype.itemsize

    @property
    def folders(self) -> dict[str, Path]:
        return {kind: self.folder(kind) for kind in SUFFIXES}


def feature_contents(kind: str) -> Contents:
    """What extraction makes in the folder of ``keypoints`` or ``descriptors``."""
    return Contents(
        what=kind,
        files=(
            *(f"**/*{SUFFIXES[kind]}", f"{kind}.txt", f"{kind}.tar"),
            *(RECORDS_NAME, ORIENTATIONS_NAME, ORIGIN_NAME),
            *("extract_report.json", "extract_config.yaml"),
        ),
        flag=f"--{kind}-type or --output",
        by_name=True,
    )


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
            found = _other_layout(folder, kind, feature_type.tar)
            if is_made_with(folder, contents, made, options) and found is not None:
                if not options.replaces:
                    raise contents.refusal(folder, found)
                anew = True
            stack.enter_context(open_ledger(folder, contents, made, options, anew=anew))
        _write_configs(feature_type)
        fill()
        records = tuple(stack.enter_context(open_records(f)) for f in folders.values())
        rows = stack.enter_context(
            _open_tar_rows(feature_type)
            if feature_type.tar
            else nullcontext(_FolderRows(feature_type))
        )
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
        found = _other_layout(folder, kind, feature_type.tar)
        if found is not None:
            raise contents.refusal(folder, found)
    archives = {kind: folder / f"{kind}.tar" for kind, folder in folders.items()}
    rows: RowStore = _FolderRows(feature_type)
    if feature_type.tar:
        if not all(path.is_file() for path in archives.values()):
            return None
        stored = {kind: _StoredArchive.of(path) for kind, path in archives.items()}
        rows = _TarRows(feature_type, stored)
    records = tuple(map(stored_records, folders.values()))
    return StoredFeatures(store=FeatureWriter(rows=rows, records=records))


def _manifest_of(kind: str, feature_type: FeatureType, manifest: Manifest) -> Manifest:
    """Descriptors belong to one type of keypoints."""
    if kind == "keypoints":
        return manifest
    settings = {**manifest.settings, "keypoints_type": feature_type.keypoints_type}
    return dataclasses.replace(manifest, settings=settings)


def _other_layout(folder: Path, kind: str, tar: bool) -> str | None:
    """What is there instead of an archive, or of a folder of files; None if nothing."""
    archive = (folder / f"{kind}.tar").exists()
    if archive and not tar:
        return "an archive, which --tar adds to"
    # without rows it is what a run that was stopped before its first archive left
    if tar and not archive and any(folder.rglob(f"*{SUFFIXES[kind]}")):
        return "a folder of files, expected an archive because of --tar"
    return None


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


class _FolderRows:
    """One file per image and kind, moved into place when whole."""

    def __init__(self, feature_type: FeatureType) -> None:
        self._type = feature_type

    def _path(self, kind: str, image: str) -> Path:
        folder = self._type.folder(kind)
        return folder / (check_relative_name(image, folder) + SUFFIXES[kind])

    def is_complete(self, image: str) -> bool:
        try:
            sizes = [self._path(kind, image).stat().st_size for kind in SUFFIXES]
        except OSError:
            return False
        return _agree(sizes[0], sizes[1], self._type.row_bytes)

    def written_ns(self, image: str) -> int:
        return min(self._path(kind, image).stat().st_mtime_ns for kind in SUFFIXES)

    def remove(self, image: str) -> None:
        for kind in SUFFIXES:
            remove_file(self._path(kind, image))

    def write(self, image: str, features: LocalFeatures) -> None:
        for kind, data in _rows(features, self._type.dtype).items():
            write_item(self._type.folder(kind), self._path(kind, image), data)


@contextmanager
def _open_tar_rows(feature_type: FeatureType) -> Iterator[RowStore]:
    with ExitStack() as stack:
        archives = {
            kind: stack.enter_context(GrowingArchive(folder / f"{kind}.tar"))
            for kind, folder in feature_type.folders.items()
        }
        yield _TarRows(feature_type, archives)


@dataclass(frozen=True, kw_only=True)
class _StoredArchive:
    """What is known of an archive without opening it to write, as GrowingArchive."""

    sizes: Mapping[str, int]
    written_ns: int

    @staticmethod
    def of(path: Path) -> _StoredArchive:
        sizes = {name: size for name, (_, size) in index_archive(path).items()}
        return _StoredArchive(sizes=sizes, written_ns=path.stat().st_mtime_ns)

    def append(self, name: str, data: bytes) -> None:
        """Refuse, as it is only looked at."""
        raise NotImplementedError(name)


class _TarRows:
    """One archive a kind; an image counts once its last byte is in both."""

    def __init__(
        self,
        feature_type: FeatureType,
        archives: Mapping[str, GrowingArchive | _StoredArchive],
    ) -> None:
        self._type = feature_type
        self._archives = archives

    def is_complete(self, image: str) -> bool:
        keypoints, descriptors = (
            self._archives[kind].sizes.get(image + suffix)
            for kind, suffix in SUFFIXES.items()
        )
        if keypoints is None or descriptors is None:
            return False
        return _agree(keypoints, descriptors, self._type.row_bytes)

    def written_ns(self, image: str) -> int:
        return min(archive.written_ns for archive in self._archives.values())

    def remove(self, image: str) -> None:
        """Leave the members, of which the last of a name will count."""

    def write(self, image: str, features: LocalFeatures) -> None:
        for kind, data in _rows(features, self._type.dtype).items():
            name = check_relative_name(image, self._type.folder(kind)) + SUFFIXES[kind]
            self._archives[kind].append(name, data)
