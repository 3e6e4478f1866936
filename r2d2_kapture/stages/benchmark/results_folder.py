"""Folders of evaluation results: one per set of features, with its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from r2d2_kapture.config.match import MutualNearestConfig
from r2d2_kapture.errors import ConfigError, OutputError
from r2d2_kapture.io.outputs.atomic import is_temporary, write_json_atomic
from r2d2_kapture.io.outputs.manifest import FILE_NAME, Manifest, read_manifest
from r2d2_kapture.matching.matcher import Matcher, matcher_record
from r2d2_kapture.stages.benchmark.worst_pictures import remove_pictures

RESULTS = "results"
"""Folder of finished work, for resuming, within that of a set of features."""

FEATURES = "features"
"""Folder of extracted features, within that of a set of features."""


def file_stem(label: str) -> str:
    """Turn a label into a file name."""
    return re.sub(r"[^\w.,=+-]+", "_", label).strip(".") or "_"


def file_stems(labels: Sequence[str]) -> list[str]:
    """Turn labels into file names.

    Raises:
        ConfigError: two would be equal.
    """
    stems = [file_stem(label) for label in labels]
    if len(set(stems)) < len(stems):
        raise ConfigError(
            f"labels: found a duplicate in {', '.join(labels)}, expected distinct "
            "labels; give another --label"
        )
    return stems


def with_protocol(
    features: Manifest, matcher: Matcher, protocol: Mapping[str, Any]
) -> Manifest:
    """The manifest of results: features, matcher, and what is measured."""
    matched: dict[str, Any] = {"matcher": "mutual nearest neighbours"}
    if matcher.settings != MutualNearestConfig():
        matched |= matcher_record(matcher)
    return dataclasses.replace(
        features,
        settings={**features.settings, **matched, **protocol},
        versions={**features.versions, "pycolmap": metadata.version("pycolmap")},
    )


def fingerprint_of(files: Iterable[Path], truth: bytes) -> str:
    """Digest of the name, size and time of files, and of the ground truth."""
    digest = hashlib.sha256(truth)
    for path in files:
        digest.update(path.name.encode("utf-8", "surrogateescape"))
        if path.is_file():
            stat = path.stat()
            digest.update(f" {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def claim_folder(folder: Path, manifest: Manifest, *, force: bool) -> None:
    """Create a folder of results, or check that its results have the same settings.

    Partial files of a killed run are removed.

    Args:
        folder: of one source of features.
        manifest: of its results.
        force: remove existing results.

    Raises:
        FeatureFormatError: its manifest is broken.
        OutputError: it holds results of other settings, or other files.
    """
    path = folder / FILE_NAME
    existing = None if force else read_manifest(path)
    if existing is not None:
        differences = manifest.differences(existing)
        if differences:
            raise OutputError(
                f"{folder}: found results made with {'; '.join(differences)}; choose "
                "another --output or --label, or --force to redo them"
            )
    elif not path.is_file() and _holds_files(folder):
        raise OutputError(
            f"{folder}: found files that are not results; choose another --output or "
            "--label"
        )
    else:
        for name in (RESULTS, FEATURES):
            shutil.rmtree(folder / name, ignore_errors=True)
        remove_pictures(folder)
        write_json_atomic(path, manifest.to_json())
    _remove_temporaries(folder)


def _holds_files(folder: Path) -> bool:
    """Whether there is anything but partial files of a killed run."""
    return folder.is_dir() and not all(map(is_temporary, folder.iterdir()))


def _remove_temporaries(folder: Path) -> None:
    for path in folder.rglob(".*"):
        if is_temporary(path) and path.is_file():
            path.unlink()
