"""Results on disk: NumPy archives without pickles, one a run and one a sequence.

    format          () unicode          FORMAT
    sequence        (P,) unicode        of each pair
    kind            (P,) unicode        illumination, viewpoint or other
    image           (P,) int64          number of the second image
    features        (P, 2) int64        of image 1 and of the second
    matches         (P,) int64
    mma             (P, T) float64      share of correct matches at each threshold
    repeatability   (P, T) float64
    matching_score  (P, T) float64
    corner_error    (P,) float64        pixels, inf where no homography was found

The file of a run adds

    label           () unicode          what was evaluated
    manifest        () unicode          JSON of weights, settings and versions
    thresholds      (T,) float64        pixels

and the file of a sequence, the matches of its pairs one after the other:

    points1         (K, 2) float32      pixels of image 1
    points2         (K, 2) float32      pixels of the second image
    errors          (K,) float64        pixels
    fingerprint     () unicode          of the files that were read
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.homography import MatchedPair, PairResult
from r2d2_kapture.evaluation.matched_points import MatchedPoints
from r2d2_kapture.evaluation.sequences import Kind
from r2d2_kapture.io.features.npz import read_arrays
from r2d2_kapture.io.outputs.atomic import write_bytes_atomic

FORMAT = "r2d2_kapture homography results 1"
COLUMNS = tuple(field.name for field in dataclasses.fields(PairResult))
SHARES = ("mma", "repeatability", "matching_score")
MATCH_FIELDS = tuple(field.name for field in dataclasses.fields(MatchedPoints))

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class HomographyResults:
    """What a run found.

    Attributes:
        label: what was evaluated, for tables and plots.
        manifest: JSON of weights, settings and versions.
        thresholds: (T,) pixels.
        pairs: every pair of every sequence; at least one.

    Raises:
        FeatureFormatError: there is no pair.
    """

    label: str
    manifest: str
    thresholds: tuple[float, ...]
    pairs: tuple[PairResult, ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise FeatureFormatError(f"{self.label}: results without an image pair")


def save_results(path: Path, results: HomographyResults) -> None:
    """Write the results of a run; the same results make the same bytes.

    Raises:
        OutputError: the file system refused.
    """
    fields = {
        "label": np.array(results.label),
        "manifest": np.array(results.manifest),
        "thresholds": np.array(results.thresholds),
    }
    _save(path, {**_columns(results.pairs), **fields})


def load_results(path: Path) -> HomographyResults:
    """Read the results of a run.

    Raises:
        FeatureFormatError: absent, broken, or something else.
    """
    arrays = _read(path)
    try:
        thresholds = tuple(map(float, arrays["thresholds"]))
        _check_shapes(arrays, len(thresholds))
        return HomographyResults(
            label=str(arrays["label"]),
            manifest=str(arrays["manifest"]),
            thresholds=thresholds,
            pairs=tuple(PairResult(**row) for row in _rows(arrays)),
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise FeatureFormatError(f"{path}: not {FORMAT}: {error}") from error


def save_sequence(path: Path, pairs: Sequence[MatchedPair], fingerprint: str) -> None:
    """Write the results of one sequence with the matches of its pairs; at least one.

    Raises:
        OutputError: the file system refused.
    """
    matches = {
        name: np.concatenate([getattr(pair, name) for pair in pairs])
        for name in MATCH_FIELDS
    }
    fields = {**matches, "fingerprint": np.array(fingerprint)}
    _save(path, {**_columns(pairs), **fields})


def load_sequence(path: Path, fingerprint: str) -> list[MatchedPair] | None:
    """Read the results of a sequence; None where absent, broken or of other files."""
    if not path.is_file():
        return None
    try:
        arrays = _read(path)
        if str(arrays["fingerprint"]) != fingerprint:
            return None
        ends = np.cumsum(arrays["matches"])[:-1]
        parts = zip(*(np.split(arrays[name], ends) for name in MATCH_FIELDS))
        return [
            MatchedPair(**row, **dict(zip(MATCH_FIELDS, matches)))
            for row, matches in zip(_rows(arrays), parts, strict=True)
        ]
    except (FeatureFormatError, KeyError, ValueError, TypeError, OverflowError):
        return None


def _columns(pairs: Sequence[PairResult]) -> dict[str, AnyArray]:
    return {name: np.array([getattr(pair, name) for pair in pairs]) for name in COLUMNS}


def _check_shapes(arrays: Mapping[str, AnyArray], thresholds: int) -> None:
    expected = len(arrays["image"]), thresholds
    for name in SHARES:
        if arrays[name].shape != expected:
            raise ValueError(
                f"{name}: found {arrays[name].shape}, expected {expected}, the pairs "
                "and the thresholds"
            )


def _rows(arrays: Mapping[str, AnyArray]) -> Iterator[dict[str, Any]]:
    """The fields of each pair, with Python's own types where a field is one value."""
    for values in zip(*(arrays[name] for name in COLUMNS), strict=True):
        row = dict(zip(COLUMNS, values))
        first, second = row["features"].tolist()
        if row["kind"] not in get_args(Kind):
            raise ValueError(f"found kind {row['kind']}")
        # comparisons with NaN are false
        if not all(((row[name] >= 0) & (row[name] <= 1)).all() for name in SHARES):
            raise ValueError("found a share that is not within 0 to 1")
        if not row["corner_error"] >= 0:
            raise ValueError(f"found a corner error of {row['corner_error']}")
        yield {
            **row,
            "sequence": str(row["sequence"]),
            "kind": str(row["kind"]),
            "image": int(row["image"]),
            "features": (int(first), int(second)),
            "matches": int(row["matches"]),
            "corner_error": float(row["corner_error"]),
        }


def _save(path: Path, fields: Mapping[str, AnyArray]) -> None:
    arrays: dict[str, Any] = {"format": np.array(FORMAT), **fields}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_bytes_atomic(path, content.getvalue())


def _read(path: Path) -> dict[str, AnyArray]:
    arrays = read_arrays(path)
    if str(arrays.get("format")) != FORMAT:
        raise FeatureFormatError(
            f"{path}: found an archive of {', '.join(arrays)}, expected {FORMAT}"
        )
    return arrays
