"""Results of image pairs as JSON, and their means."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.curves import area_under_curve
from r2d2_kapture.evaluation.pair_poses import (
    EPIPOLAR_THRESHOLDS,
    POSE_THRESHOLDS,
    PairPoseResult,
)
from r2d2_kapture.io.outputs.atomic import write_json_atomic

FORMAT = "r2d2_kapture pair poses 1"
ERRORS = ("rotation_error", "translation_error")


@dataclass(frozen=True, kw_only=True)
class PairPoseRun:
    """What a run found.

    Attributes:
        label: what was evaluated.
        manifest: weights, settings and versions.
        pairs: results; at least one.
    """

    label: str
    manifest: Mapping[str, Any]
    pairs: tuple[PairPoseResult, ...]

    @property
    def values(self) -> dict[str, float]:
        """Means over pairs by name, such as ``epipolar@2`` and ``AUC@10``."""
        shares = np.mean([pair.epipolar for pair in self.pairs], axis=0)
        pose_errors = np.array([pair.pose_error for pair in self.pairs])
        areas = area_under_curve(pose_errors, POSE_THRESHOLDS)
        # each image counts once, however many pairs it is in
        features = {pair.image1: pair.features[0] for pair in self.pairs}
        features |= {pair.image2: pair.features[1] for pair in self.pairs}
        return {
            "pairs": len(self.pairs),
            "features": float(np.mean(list(features.values()))),
            "matches": float(np.mean([pair.matches for pair in self.pairs])),
            **_named("epipolar", EPIPOLAR_THRESHOLDS, shares.tolist()),
            **_named("AUC", POSE_THRESHOLDS, areas.tolist()),
        }


def _named(
    name: str, thresholds: Sequence[float], values: Sequence[float]
) -> dict[str, float]:
    return {f"{name}@{t:g}": v for t, v in zip(thresholds, values, strict=True)}


def save_run(path: Path, run: PairPoseRun) -> None:
    """Write a run with its means.

    Raises:
        OutputError: the file system refused.
    """
    content = {
        "format": FORMAT,
        "label": run.label,
        "manifest": dict(run.manifest),
        "means": run.values,
        "pairs": [_to_json(pair) for pair in run.pairs],
    }
    write_json_atomic(path, content)


def load_run(path: Path) -> PairPoseRun:
    """Read a run.

    Raises:
        FeatureFormatError: absent, broken or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not content["pairs"]:
            raise ValueError("found another format, or no pair")
        return PairPoseRun(
            label=str(content["label"]),
            manifest=dict(content["manifest"]),
            pairs=tuple(_from_json(pair) for pair in content["pairs"]),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise FeatureFormatError(
            f"{path}: cannot be read as {FORMAT}: {error}"
        ) from error


def save_block(path: Path, pairs: Sequence[PairPoseResult], fingerprint: str) -> None:
    """Write the finished pairs of one image.

    Raises:
        OutputError: the file system refused.
    """
    content = {
        "fingerprint": fingerprint,
        "pairs": [_to_json(pair) for pair in pairs],
    }
    write_json_atomic(path, content)


def load_block(path: Path, fingerprint: str) -> list[PairPoseResult] | None:
    """Read finished pairs; None where absent, broken, or of other files or pairs."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["fingerprint"] != fingerprint:
            return None
        return [_from_json(pair) for pair in content["pairs"]]
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _to_json(pair: PairPoseResult) -> dict[str, Any]:
    """Plain values; JSON has no infinity, so it is null."""
    values = dataclasses.asdict(pair)
    finite = {k: values[k] if math.isfinite(values[k]) else None for k in ERRORS}
    return {**values, **finite}


def _from_json(values: Mapping[str, Any]) -> PairPoseResult:
    errors = {k: math.inf if values[k] is None else float(values[k]) for k in ERRORS}
    first, second = values["features"]
    shares = tuple(map(float, values["epipolar"]))
    # comparisons with NaN are false
    if len(shares) != len(EPIPOLAR_THRESHOLDS) or not all(0 <= s <= 1 for s in shares):
        raise ValueError(
            f"found epipolar {shares}, expected {len(EPIPOLAR_THRESHOLDS)} shares"
        )
    if not all(error >= 0 for error in errors.values()):
        raise ValueError(f"found errors {errors}, expected degrees")
    return PairPoseResult(
        image1=str(values["image1"]),
        image2=str(values["image2"]),
        features=(int(first), int(second)),
        matches=int(values["matches"]),
        epipolar=shares,
        **errors,
    )
