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
"""Folder, in that of a set of features, of what is resumed."""

FEATURES = "features"
"""Folder, in that of a set of features, of what was extracted for it."""


def file_stem(label: str) -> str:
    """A label as the name of a file."""
    return re.sub(r"[^\w.,=+-]+", "_", label).strip(".") or "_"


def file_stems(labels: Sequence[str]) -> list[str]:
    """Labels as names of files.

    Raises:
        ConfigError: two would be the same.
    """
    stems = [file_stem(label) for label in labels]
    if len(set(stems)) < len(stems):
        raise ConfigError(
            f"labels: found one twice in {', '.join(labels)}, expected all different; "
            "give another --label"
        )
    return stems


def with_protocol(
    features: Manifest, matcher: Matcher, protocol: Mapping[str, Any]
) -> Manifest:
    """What decides the numbers: the features, the matcher, and what is measured."""
    matched: dict[str, Any] = {"matcher": "mutual nearest neighbours"}
    if matcher.settings != MutualNearestConfig():
        matched |= matcher_record(matcher)
    return dataclasses.replace(
        features,
        settings={**features.settings, **matched, **protocol},
        versions={**features.versions, "pycolmap": metadata.version("pycolmap")},
    )


def fingerprint_of(files: Iterable[Path], truth: bytes) -> str:
    """Changes with the name, size or time of a file, and with the truth."""
    digest = hashlib.sha256(truth)
    for path in files:
        digest.update(path.name.encode("utf-8", "surrogateescape"))
        if path.is_file():
            stat = path.stat()
            digest.update(f" {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def claim_folder(folder: Path, manifest: Manifest, *, force: bool) -> None:
    """Make a folder of results, or check that its results have the same settings.

    What a run that was killed left half written is removed.

    Args:
        folder: of one source of features.
        manifest: what its results are made with.
        force: remove what is there.

    Raises:
        FeatureFormatError: its manifest is broken.
        OutputError: it holds results made with other settings, or something else.
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
    """Whether there is anything but what a killed run left half written."""
    return folder.is_dir() and not all(map(is_temporary, folder.iterdir()))


def _remove_temporaries(folder: Path) -> None:
    for path in folder.rglob(".*"):
        if is_temporary(path) and path.is_file():
            path.unlink()
