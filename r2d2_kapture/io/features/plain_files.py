"""Features of plain images: one file per image, or one HDF5 file for all.

Every output remembers the settings it was made with, and what image file, so that a
second run can distinguish finished work from work of another kind or another picture.

The third column of keypoints is the patch side in pixels in ``.r2d2`` files. In
``.d2-net`` files it is 1 / scale in stored pixels: one over the scale of the level,
times the factor by which the image was shrunk first. So the published extractors have
it (FileStyle).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.config.extract import FileFormat
from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.io.features.colmap_text import write_colmap_text
from r2d2_kapture.io.features.hdf5 import h5_names, h5_settings, read_h5, write_h5
from r2d2_kapture.io.features.mat import read_mat_settings, write_mat
from r2d2_kapture.io.features.npz import read_npz, read_npz_settings, write_npz
from r2d2_kapture.io.outputs.atomic import remove_file, write_json_atomic
from r2d2_kapture.io.outputs.image_records import (
    ImageRecord,
    open_records,
    record_from_json,
    stored_records,
)
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    json_text,
    parse_manifest,
    read_manifest,
)
from r2d2_kapture.io.outputs.recorded_features import (
    FeatureStore,
    FeatureWriter,
    RowStore,
    StoredFeatures,
)
from r2d2_kapture.types import R2D2_FILES, FileStyle, LocalFeatures

H5_NAME = "features.h5"
IMAGE_KEY = "image"
"""Of the record of the image in the settings of a file."""
FEATURES = Contents(what="features", files=(), flag="--output-dir")


@contextmanager
def open_feature_files(
    file_format: FileFormat,
    targets: dict[str, Path],
    output_dir: Path | None,
    manifest: Manifest,
    *,
    style: FileStyle = R2D2_FILES,
    force: bool,
    replaces: bool = False,
    fill: Callable[[], None] = lambda: None,
    assembles: bool = True,
) -> Iterator[FeatureStore]:
    """Choose how features are stored.

    Args:
        file_format: ``npz``, ``mat``, ``h5`` or ``colmap-text``.
        targets: image name -> path of its output without the format's suffix.
        output_dir: folder of all outputs; needed for h5 and colmap-text.
        manifest: what the features are made with.
        style: of npz and mat files.
        force: redo existing outputs.
        replaces: redo those of h5 and colmap-text that have other settings.
        fill: adds outputs that were made elsewhere, to the folder that is locked.
        assembles: whether one file is made of the parts that features of h5 are first.

    Raises:
        OutputError: existing outputs have other settings, or cannot be written.
    """
    if file_format in ("npz", "mat"):
        with nullcontext() if output_dir is None else exclusive(output_dir):
            fill()
            yield _settings_inside(file_format, targets, manifest, style, force)
    elif output_dir is None:
        raise OutputError(
            f"--format {file_format} needs --output-dir, the folder to write into"
        )
    elif file_format == "colmap-text":
        with exclusive(output_dir):
            texts = _ColmapTexts(targets, output_dir, manifest, force, replaces)
            fill()
            with open_records(output_dir) as records:
                yield FeatureWriter(rows=texts, records=(records,))
    else:
        with exclusive(output_dir):
            parts = _H5Parts(output_dir / H5_NAME, manifest, force, replaces)
            fill()
            with open_records(output_dir) as records:
                yield FeatureWriter(rows=parts, records=(records,))
                if assembles:
                    parts.assemble()


def stored_feature_files(
    file_format: FileFormat,
    targets: dict[str, Path],
    output_dir: Path,
    manifest: Manifest,
    style: FileStyle = R2D2_FILES,
) -> StoredFeatures:
    """The features of images in a folder, which another run may write.

    Args:
        file_format, targets, output_dir, manifest, style: as of ``open_feature_files``.

    Raises:
        OutputError: existing outputs have other settings.
    """
    if file_format in ("npz", "mat"):
        inside = _settings_inside(file_format, targets, manifest, style, force=False)
        return StoredFeatures(store=inside)
    rows: RowStore = (
        _H5Parts(output_dir / H5_NAME, manifest, force=False)
        if file_format == "h5"
        else _ColmapTexts(targets, output_dir, manifest, force=False, notes=False)
    )
    records = (stored_records(output_dir),)
    return StoredFeatures(store=FeatureWriter(rows=rows, records=records))


def _settings_inside(
    file_format: FileFormat,
    targets: dict[str, Path],
    manifest: Manifest,
    style: FileStyle,
    force: bool,
) -> _SettingsInside:
    formats = (NPZ, MAT) if file_format == "npz" else (MAT, NPZ)
    suffix = style.suffix if file_format == "npz" else style.mat_suffix
    paths = _with_suffix(targets, suffix)
    return _SettingsInside(paths, *formats, style.scale_unit, manifest, force)


def feature_file_paths(
    file_format: FileFormat,
    targets: dict[str, Path],
    output_dir: Path,
    style: FileStyle = R2D2_FILES,
) -> Iterator[Path]:
    """Where the features of images are, or would be; see ``open_feature_files``."""
    suffixes = {
        "npz": style.suffix,
        "mat": style.mat_suffix,
        "colmap-text": ".txt",
    }
    if file_format == "h5":
        yield output_dir / H5_NAME
    else:
        yield from _with_suffix(targets, suffixes[file_format]).values()


def _with_suffix(targets: dict[str, Path], suffix: str) -> dict[str, Path]:
    return {
        name: target.with_name(target.name + suffix) for name, target in targets.items()
    }


@dataclass(frozen=True, kw_only=True)
class _Format:
    """A format of one file per image: how to write it, and how to know it."""

    title: str
    magic: bytes
    write: Callable[[Path, LocalFeatures, str], None]
    read_settings: Callable[[Path], str | None]


NPZ = _Format(
    title="a NumPy archive",
    magic=b"PK",
    write=write_npz,
    read_settings=read_npz_settings,
)
MAT = _Format(
    title="a MATLAB file",
    magic=b"MATLAB",
    write=write_mat,
    read_settings=read_mat_settings,
)


class _SettingsInside:
    """One file an image that holds its settings; checked before anything is written."""

    def __init__(
        self,
        paths: dict[str, Path],
        file_format: _Format,
        other_format: _Format,
        scale_unit: float,
        manifest: Manifest,
        force: bool,
    ) -> None:
        self._paths = paths
        self._write = file_format.write
        self._scale_unit = scale_unit
        self._manifest = manifest
        self._complete: dict[str, ImageRecord | None] = {}
        for name, path in () if force else self._paths.items():
            settings = _made_with(path, file_format, other_format, manifest)
            if settings is not None:
                self._complete[name] = _record_in(settings)

    def is_complete(self, name: str) -> bool:
        return name in self._complete

    def record(self, name: str) -> ImageRecord | None:
        return self._complete[name]

    def written_ns(self, name: str) -> int:
        return self._paths[name].stat().st_mtime_ns

    def renew(self, name: str, record: ImageRecord) -> None:
        """Leave the record inside the file, which holds the content's digest."""

    def drop(self, name: str) -> None:
        del self._complete[name]
        remove_file(self._paths[name])

    def write(
        self, name: str, features: LocalFeatures, record: ImageRecord | None = None
    ) -> None:
        scales = features.scales / np.float32(self._scale_unit)
        stored = dataclasses.replace(features, scales=scales)
        self._write(self._paths[name], stored, _settings_of(self._manifest, record))


def _settings_of(manifest: Manifest, record: ImageRecord | None) -> str:
    """What a file of one image holds of how it was made, and of which file."""
    if record is None:
        return manifest.to_text()
    content = manifest.to_json() | {IMAGE_KEY: dataclasses.asdict(record)}
    return json_text(content)


def _record_in(settings: str) -> ImageRecord | None:
    """The record in settings that were found to be a manifest."""
    return record_from_json(json.loads(settings).get(IMAGE_KEY))


def _made_with(
    path: Path, file_format: _Format, other_format: _Format, manifest: Manifest
) -> str | None:
    """Settings of a file that is there and ours; a broken one is as good as none."""
    try:
        text = file_format.read_settings(path)
    except FeatureFormatError:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
            if head and not head.startswith(file_format.magic):
                of_other = head.startswith(other_format.magic)
                found = other_format.title if of_other else "something else"
                found += f", expected {file_format.title}"
                raise FEATURES.refusal(path, found) from None
        return None
    if text is not None:
        _refuse_other_settings(path, text, manifest)
    return text


def _refuse_other_settings(path: Path, text: str, manifest: Manifest) -> None:
    if not text:
        raise FEATURES.refusal(path, "features of another tool")
    FEATURES.refuse(path, manifest.differences(parse_manifest(text, str(path))))


def _has_settings(text: str, manifest: Manifest) -> bool:
    """Whether that is how outputs were made, if any text says so."""
    return bool(text) and not manifest.differences(parse_manifest(text, FILE_NAME))


def _settings_of_h5(path: Path, replaces: bool) -> str:
    """Those of an HDF5 file; none of another file, which may be refused."""
    try:
        return h5_settings(path)
    except FeatureFormatError:
        if replaces:
            return ""
        found = "something else, expected an HDF5 file"
        raise FEATURES.refusal(path, found) from None


class _ColmapTexts:
    """One text file per image and, as COLMAP allows no comments, a manifest."""

    def __init__(
        self,
        targets: dict[str, Path],
        output_dir: Path,
        manifest: Manifest,
        force: bool,
        replaces: bool = False,
        notes: bool = True,
    ) -> None:
        self._paths = _with_suffix(targets, ".txt")
        existing = read_manifest(output_dir / FILE_NAME)
        made_with = "" if existing is None else existing.to_text()
        if force or (replaces and not _has_settings(made_with, manifest)):
            # before the manifest, which vouches for existing files
            for path in self._paths.values():
                remove_file(path)
        left = next(output_dir.rglob("*.txt"), None)
        if left is not None:
            _refuse_other_settings(left, made_with, manifest)
        if notes:
            write_json_atomic(output_dir / FILE_NAME, manifest.to_json())

    def is_complete(self, name: str) -> bool:
        return self._paths[name].is_file()

    def written_ns(self, name: str) -> int:
        return self._paths[name].stat().st_mtime_ns

    def remove(self, name: str) -> None:
        remove_file(self._paths[name])

    def write(self, name: str, features: LocalFeatures) -> None:
        write_colmap_text(self._paths[name], features)


class _H5Parts:
    """One file for all, assembled at the end from parts that survive a kill.

    An HDF5 file that is written to when its process dies is lost, so each image first
    becomes a small file in a folder next to it.
    """

    def __init__(
        self, path: Path, manifest: Manifest, force: bool, replaces: bool = False
    ) -> None:
        self._path = path
        self._made_with = manifest.to_text()
        self._settings = dataclasses.replace(manifest, versions={}).to_text()
        self._folder = path.with_name(f".{path.name}.parts")
        self._finished: set[str] = set()
        if force:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif path.exists():
            settings = _settings_of_h5(path, replaces)
            if not replaces:
                _refuse_other_settings(path, settings, manifest)
            # parts are of these settings, as their names say, and stay
            if _has_settings(settings, manifest):
                self._finished = set(h5_names(path))
        self._parts: set[str] = set()

    def _part(self, name: str) -> Path:
        digest = hashlib.sha256(os.fsencode(self._settings + name)).hexdigest()
        return self._folder / f"{digest[:32]}.r2d2"

    def is_complete(self, name: str) -> bool:
        with suppress(FeatureFormatError):
            if read_npz_settings(self._part(name)) is not None:
                self._parts.add(name)
        return name in self._parts | self._finished

    def written_ns(self, name: str) -> int:
        path = self._part(name) if name in self._parts else self._path
        return path.stat().st_mtime_ns

    def remove(self, name: str) -> None:
        remove_file(self._part(name))
        self._parts.discard(name)
        self._finished.discard(name)

    def write(self, name: str, features: LocalFeatures) -> None:
        write_npz(self._part(name), features, self._made_with)
        self._parts.add(name)

    def assemble(self) -> None:
        """Move all parts into the HDF5 file, with what it held already."""
        if self._parts or not self._path.exists():
            write_h5(self._path, self._items(), self._made_with)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _items(self) -> Iterator[tuple[str, LocalFeatures]]:
        for name in sorted(self._finished - self._parts):
            yield name, read_h5(self._path, name)
        for name in sorted(self._parts):
            yield name, read_npz(self._part(name))
