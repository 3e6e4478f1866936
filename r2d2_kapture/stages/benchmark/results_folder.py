"""Folders of evaluation results: one per set of features, with its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from r2d2_kapture.config.match import MutualNearestConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.outputs.atomic import is_temporary
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.lock import LOCK_NAME
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.orientations import ORIENTATIONS_NAME
from r2d2_kapture.matching.matcher import Matcher, matcher_record
from r2d2_kapture.stages.benchmark.worst_pictures import RECORD_NAME

RESULTS = "results"
"""Folder of finished work, for resuming, within that of a set of features."""

FEATURES = "features"
"""Folder of extracted features, within that of a set of features."""

CONTENTS = Contents(
    what="results",
    files=(
        f"{RESULTS}/**/*.npz",
        f"{RESULTS}/**/*.json",
        f"{FEATURES}/**/*.*.*",  # such as a.jpg.r2d2
        f"{FEATURES}/{LOCK_NAME}",
        f"{FEATURES}/{ORIENTATIONS_NAME}",
        RECORD_NAME,
        "worst_*.png",
        "extract_config.yaml",
    ),
    flag="--output or --label",
    by_name=True,
)
"""What is made in the folder of a set of features."""


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


def remove_temporaries(folder: Path) -> None:
    """Remove partial files of a killed run."""
    for path in folder.rglob(".*"):
        if is_temporary(path) and path.is_file():
            path.unlink()
