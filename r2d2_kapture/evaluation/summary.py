"""Means of results over groups of pairs: overall, by what changes, by sequence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.curves import area_under_curve, share_within
from r2d2_kapture.evaluation.homography import PairResult
from r2d2_kapture.evaluation.homography_accuracy import CORNER_THRESHOLDS
from r2d2_kapture.evaluation.published_caches import (
    PublishedGroup,
    read_published_cache,
)
from r2d2_kapture.evaluation.results import load_results
from r2d2_kapture.evaluation.sequences import Kind

OVERALL = "overall"
MMA = "MMA"
Curve = Mapping[float, float]


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """Means over a group of pairs.

    Attributes:
        pairs: how many.
        features: of an image, in the mean over images.
        matches: of a pair, in the mean over pairs.
        curves: name of a metric -> its mean at each threshold in pixels. Published
            caches hold the accuracy only.
    """

    pairs: int
    features: float
    matches: float
    curves: Mapping[str, Curve]

    @property
    def values(self) -> dict[str, float]:
        """All numbers by name, such as ``MMA@3``."""
        counts = {
            "pairs": self.pairs,
            "features": self.features,
            "matches": self.matches,
        }
        at_thresholds = {
            f"{name}@{threshold:g}": value
            for name, curve in self.curves.items()
            for threshold, value in curve.items()
        }
        return {**counts, **at_thresholds}


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Means of a run, ours or published.

    Attributes:
        label: what was evaluated.
        source: the file that holds the results.
        published: whether it is a published cache.
        groups: overall, illumination and viewpoint, where there are such pairs.
        sequences: by name; none for published caches.
        manifest: weights, settings and versions; empty for published caches.
    """

    label: str
    source: Path
    published: bool
    groups: Mapping[str, GroupSummary]
    sequences: Mapping[str, GroupSummary]
    manifest: Mapping[str, Any]


def read_summary(path: Path) -> RunSummary:
    """Read a file of results, of ours (.npz) or a published cache (.npy).

    Raises:
        FeatureFormatError: it is neither.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
    except OSError as error:
        raise FeatureFormatError(
            f"{path}: cannot be read: {error.strerror}; expected results of this "
            "command (.npz) or a published cache (.npy)"
        ) from error
    return _our_summary(path) if is_archive else _published_summary(path)


def _our_summary(path: Path) -> RunSummary:
    results = load_results(path)
    kinds = [k for k in get_args(Kind) if any(pair.kind == k for pair in results.pairs)]
    names = dict.fromkeys(pair.sequence for pair in results.pairs)
    groups = {OVERALL: list(results.pairs)}
    groups |= {k: [p for p in results.pairs if p.kind == k] for k in kinds}
    sequences = {n: [p for p in results.pairs if p.sequence == n] for n in names}
    thresholds = results.thresholds
    return RunSummary(
        label=results.label,
        source=path,
        published=False,
        groups={k: summarize(pairs, thresholds) for k, pairs in groups.items()},
        sequences={k: summarize(pairs, thresholds) for k, pairs in sequences.items()},
        manifest=_manifest(path, results.manifest),
    )


def _manifest(path: Path, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise FeatureFormatError(f"{path}: broken manifest: {error}") from error


def summarize(pairs: Sequence[PairResult], thresholds: Sequence[float]) -> GroupSummary:
    """Means over pairs, each with the same weight; at least one.

    The homography accuracy is the share of pairs whose corner error is within each
    of CORNER_THRESHOLDS, its AUC the area below that share.
    """
    corner_errors = np.array([pair.corner_error for pair in pairs])
    curves = {
        MMA: _curve(thresholds, np.mean([p.mma for p in pairs], axis=0)),
        "repeatability": _curve(
            thresholds, np.mean([p.repeatability for p in pairs], axis=0)
        ),
        "M-score": _curve(
            thresholds, np.mean([p.matching_score for p in pairs], axis=0)
        ),
        "homography": _curve(
            CORNER_THRESHOLDS, share_within(corner_errors, CORNER_THRESHOLDS)
        ),
        "AUC": _curve(
            CORNER_THRESHOLDS, area_under_curve(corner_errors, CORNER_THRESHOLDS)
        ),
    }
    # image 1 of a sequence is in all its pairs
    first_images = {pair.sequence: pair.features[0] for pair in pairs}
    counts = [*first_images.values(), *(pair.features[1] for pair in pairs)]
    return GroupSummary(
        pairs=len(pairs),
        features=float(np.mean(counts)),
        matches=float(np.mean([pair.matches for pair in pairs])),
        curves=curves,
    )


def _curve(thresholds: Iterable[float], values: Iterable[float]) -> dict[float, float]:
    return {t: float(value) for t, value in zip(thresholds, values, strict=True)}


def _published_summary(path: Path) -> RunSummary:
    kinds = read_published_cache(path)
    groups: dict[str, GroupSummary] = {OVERALL: _of_published(list(kinds.values()))}
    groups |= {name: _of_published([group]) for name, group in kinds.items()}
    return RunSummary(
        label=path.stem,
        source=path,
        published=True,
        groups=groups,
        sequences={},
        manifest={},
    )


def _of_published(parts: Sequence[PublishedGroup]) -> GroupSummary:
    """Means over groups, each with as much weight as it has pairs."""
    weights = np.array([part.pairs for part in parts])

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=weights))

    return GroupSummary(
        pairs=int(weights.sum()),
        features=mean([part.features for part in parts]),
        matches=mean([part.matches for part in parts]),
        curves={
            MMA: {t: mean([p.accuracy[t] for p in parts]) for t in parts[0].accuracy}
        },
    )
