"""Keypoints and descriptors of a kapture dataset: folders or tar archives.

kapture 1.1 (github.com/naver/kapture, kapture_format.adoc): ``.kpt`` and ``.desc`` are
raw little-endian rows without a header; keypoints.txt and descriptors.txt next to them
hold type and width. An image is complete when both files exist and agree on the count.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import kapture
import kapture.io.csv as kcsv
import numpy as np

from r2d2_kapture.errors import DatasetError, FeatureFormatError, OutputError
from r2d2_kapture.io.kapture.dataset import (
    PARTIAL_FOLDER,
    check_relative_name,
    is_described,
)
from r2d2_kapture.io.names import broken_by, shown
from r2d2_kapture.io.outputs.atomic import (
    atomic_path,
    output_error,
    remove_file,
    write_json_atomic,
)
from r2d2_kapture.io.outputs.growing_archive import GrowingArchive
from r2d2_kapture.io.outputs.image_records import (
    ImageRecord,
    RecordWriter,
    open_records,
)
from r2d2_kapture.io.outputs.lock import LOCK_NAME, exclusive
from r2d2_kapture.io.outputs.manifest import FILE_NAME as MANIFEST_NAME
from r2d2_kapture.io.outputs.manifest import Manifest, read_manifest
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
        descriptor_dim: float32 values of a descriptor.
        tar: whether rows go to keypoints.tar and descriptors.tar.
    """

    root: Path
    keypoints_type: str
    descriptors_type: str
    descriptor_dim: int
    tar: bool

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
    def folders(self) -> dict[str, Path]:
        return {kind: self.folder(kind) for kind in SUFFIXES}


class RowStore(Protocol):
    """Holds the rows of keypoints and descriptors of images."""

    def is_complete(self, image: str) -> bool:
        """Whether keypoints and descriptors of an image are there and agree."""

    def written_ns(self, image: str) -> int:
        """When those that are there were written, in nanoseconds."""

    def remove(self, image: str) -> None:
        """Remove the rows of an image where single images can be removed."""

    def write(self, image: str, features: LocalFeatures) -> None:
        """Store the features of an image; complete or absent, never in between."""


@dataclass(frozen=True, kw_only=True)
class FeatureWriter:
    """Writes the features of images, and knows which are there, and of what.

    Attributes:
        rows: where they are written.
        keypoints, descriptors: their records.
    """

    rows: RowStore
    keypoints: RecordWriter
    descriptors: RecordWriter

    @property
    def _both(self) -> tuple[RecordWriter, RecordWriter]:
        return self.keypoints, self.descriptors

    def is_complete(self, image: str) -> bool:
        """Whether keypoints and descriptors of an image are there, of one file."""
        if any(records.is_unfinished(image) for records in self._both):
            return False
        keypoints, descriptors = (item.records.get(image) for item in self._both)
        of_one = (keypoints and keypoints.sha256) == (
            descriptors and descriptors.sha256
        )
        return of_one and self.rows.is_complete(image)

    def record(self, image: str) -> ImageRecord | None:
        """What file complete features were made of, if that is known."""
        return self.keypoints.records.get(image)

    def written_ns(self, image: str) -> int:
        """When complete features were written, in nanoseconds."""
        return self.rows.written_ns(image)

    def renew(self, image: str, record: ImageRecord) -> None:
        """Note where the file that features were made of is now."""
        for records in self._both:
            records.finish(image, record)

    def drop(self, image: str) -> None:
        """Remove features of a file that is gone, or never count them again."""
        for records in self._both:
            records.begin(image)
        self.rows.remove(image)

    def write(
        self, image: str, features: LocalFeatures, record: ImageRecord | None = None
    ) -> None:
        """Store the features of an image; complete or absent, never in between.

        Args:
            image: its name.
            features: of the image.
            record: of the file that they were made of; None where there is none.

        Raises:
            OutputError: the file system refused.
        """
        if record is None:
            self.rows.write(image, features)
            return
        for records in self._both:
            records.begin(image)
        self.rows.write(image, features)
        self.renew(image, record)


@contextmanager
def open_feature_writer(
    feature_type: FeatureType,
    manifest: Manifest,
    *,
    force: bool,
    replace: bool = False,
) -> Iterator[FeatureWriter]:
    """Claim a feature type for one set of weights and settings, and write to it.

    Args:
        feature_type: where to write.
        manifest: what the features are made with.
        force: remove existing features and start again.
        replace: do so only where it was made otherwise.

    Raises:
        OutputError: the type holds features made otherwise, another run is writing it,
            or the folder cannot be written.
    """
    with ExitStack() as stack:
        for folder in feature_type.folders.values():
            stack.enter_context(exclusive(folder))
        if force or (replace and _is_of_others(feature_type, manifest)):
            for folder in feature_type.folders.values():
                _clear(folder)
        for kind, folder in feature_type.folders.items():
            _claim(folder, kind, feature_type, manifest)
        _write_configs(feature_type)
        keypoints, descriptors = (
            stack.enter_context(open_records(folder))
            for folder in feature_type.folders.values()
        )
        rows = stack.enter_context(
            _open_tar_rows(feature_type)
            if feature_type.tar
            else _open_folder_rows(feature_type)
        )
        yield FeatureWriter(rows=rows, keypoints=keypoints, descriptors=descriptors)


def _is_of_others(feature_type: FeatureType, manifest: Manifest) -> bool:
    """Whether a feature type holds what a claim would refuse."""
    try:
        for kind, folder in feature_type.folders.items():
            _check(
                folder, kind, feature_type, _manifest_of(kind, feature_type, manifest)
            )
    except (OutputError, FeatureFormatError):
        return True
    return False


def _claim(
    folder: Path, kind: str, feature_type: FeatureType, manifest: Manifest
) -> None:
    """Compare with the manifest that is there, or leave ours."""
    manifest = _manifest_of(kind, feature_type, manifest)
    _check(folder, kind, feature_type, manifest)
    if not (folder / MANIFEST_NAME).is_file():
        write_json_atomic(folder / MANIFEST_NAME, manifest.to_json())


def _manifest_of(kind: str, feature_type: FeatureType, manifest: Manifest) -> Manifest:
    """Descriptors belong to one type of keypoints."""
    if kind == "keypoints":
        return manifest
    settings = {**manifest.settings, "keypoints_type": feature_type.keypoints_type}
    return dataclasses.replace(manifest, settings=settings)


def _check(
    folder: Path, kind: str, feature_type: FeatureType, manifest: Manifest
) -> None:
    """Refuse a folder of features that were made otherwise."""
    way_out = f"choose another --{kind}-type or --output, or --force to redo them"
    archive = folder / f"{kind}.tar"
    existing = read_manifest(folder / MANIFEST_NAME)
    if existing is None:
        if (folder / f"{kind}.txt").exists() or archive.exists():
            raise OutputError(
                f"{folder}: found features without {MANIFEST_NAME}, written by another "
                f"tool; {way_out}"
            )
        return
    differences = manifest.differences(existing)
    if differences:
        raise OutputError(
            f"{folder}: found features made with {'; '.join(differences)}; {way_out}"
        )
    if archive.exists() and not feature_type.tar:
        raise OutputError(f"{folder}: found an archive; add --tar, or {way_out}")
    # without rows it is what a run that was stopped before its first archive left
    rows = folder.rglob(f"*{SUFFIXES[kind]}")
    if feature_type.tar and not archive.exists() and any(rows):
        raise OutputError(
            f"{folder}: found a folder of files; leave --tar out, or {way_out}"
        )


def _write_configs(feature_type: FeatureType) -> None:
    """Describe the rows for kapture: keypoints.txt and descriptors.txt."""
    name = feature_type.keypoints_type
    folders = feature_type.folders
    keypoints = kapture.Keypoints(name, np.float32, 3)
    descriptors = kapture.Descriptors(
        feature_type.descriptors_type,
        np.float32,
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
    fields = (feature_type.descriptors_type, "float32", dsize, name, "L2")
    if not is_described(config, *fields):
        with atomic_path(config) as path:
            kcsv.descriptors_to_file(str(path), descriptors)


def _remove_partial(feature_type: FeatureType) -> None:
    for folder in feature_type.folders.values():
        partial = folder / PARTIAL_FOLDER
        if partial.is_symlink():
            partial.unlink()
        shutil.rmtree(partial, ignore_errors=True)


def _rows(features: LocalFeatures) -> dict[str, bytes]:
    return {
        "keypoints": features.keypoints_with_scale.astype("<f4").tobytes(),
        "descriptors": features.descriptors.astype("<f4").tobytes(),
    }


def _agree(keypoint_bytes: int, descriptor_bytes: int, descriptor_dim: int) -> bool:
    count, rest = divmod(keypoint_bytes, KEYPOINT_BYTES)
    return rest == 0 and descriptor_bytes == count * descriptor_dim * 4


@contextmanager
def _open_folder_rows(feature_type: FeatureType) -> Iterator[RowStore]:
    _remove_partial(feature_type)
    yield _FolderRows(feature_type)
    _remove_partial(feature_type)


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
        return _agree(sizes[0], sizes[1], self._type.descriptor_dim)

    def written_ns(self, image: str) -> int:
        return min(self._path(kind, image).stat().st_mtime_ns for kind in SUFFIXES)

    def remove(self, image: str) -> None:
        for kind in SUFFIXES:
            remove_file(self._path(kind, image))

    def write(self, image: str, features: LocalFeatures) -> None:
        for kind, data in _rows(features).items():
            path = self._path(kind, image)
            folder = self._type.folder(kind)
            partial = folder / PARTIAL_FOLDER / "rows.tmp"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.parent.resolve().is_relative_to(folder.resolve()):
                    raise OutputError(
                        f"{path.parent}: a link that leaves {folder}; remove it"
                    )
                partial.parent.mkdir(exist_ok=True)
                partial.unlink(missing_ok=True)
                with open(partial, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)
            except OSError as error:
                raise output_error(path, error) from error


@contextmanager
def _open_tar_rows(feature_type: FeatureType) -> Iterator[RowStore]:
    with ExitStack() as stack:
        archives = {
            kind: stack.enter_context(GrowingArchive(folder / f"{kind}.tar"))
            for kind, folder in feature_type.folders.items()
        }
        yield _TarRows(feature_type, archives)


class _TarRows:
    """One archive a kind; an image counts once its last byte is in both."""

    def __init__(
        self, feature_type: FeatureType, archives: dict[str, GrowingArchive]
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
        return _agree(keypoints, descriptors, self._type.descriptor_dim)

    def written_ns(self, image: str) -> int:
        return min(archive.written_ns for archive in self._archives.values())

    def remove(self, image: str) -> None:
        """Leave the members, of which the last of a name will count."""

    def write(self, image: str, features: LocalFeatures) -> None:
        for kind, data in _rows(features).items():
            name = check_relative_name(image, self._type.folder(kind)) + SUFFIXES[kind]
            self._archives[kind].append(name, data)


def _clear(folder: Path) -> None:
    """Remove everything of a feature type but its lock.

    Raises:
        OutputError: the folder is a link to elsewhere, or cannot be emptied.
    """
    if folder.is_symlink():
        raise OutputError(
            f"{folder}: a link to {folder.resolve()}, which --force would empty; "
            "remove the link, or choose another feature type"
        )
    try:
        for path in folder.iterdir():
            if path.name == LOCK_NAME:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise output_error(folder, error) from error
