"""What became of the keypoints of each image: lines of a log, and their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.io.outputs.json_log import read_log
from r2d2_kapture.refinement.registration import Registration

LOG_NAME = "refined.jsonl"
MOVED = "moved"
UNREADABLE = "unreadable"
"""Of a keypoint whose photograph, or that of its reference, cannot be read."""
BIN = 0.01
"""Pixels, or units of similarity, in which steps and similarities are counted."""

Histogram = Counter[int]


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """What became of the keypoints of an image.

    Attributes:
        outcomes: numbers of keypoints that moved, or by why they did not.
        references: number of keypoints that others are registered against.
        steps: of those that moved, in pixels; histograms have bins of BIN.
        before, after: similarity with the reference of those that moved.
        failure: why the photograph could not be read; empty where it was.
    """

    outcomes: Mapping[str, int]
    references: int
    steps: Histogram
    before: Histogram
    after: Histogram
    failure: str = ""

    @staticmethod
    def of(
        found: Registration | None, unread: int, references: int, failure: str = ""
    ) -> ImageResult:
        """The result of a registration.

        Args:
            found: of the observations with a reference; None where there was none.
            unread: observations whose reference, or whose own photograph, is unread.
            references: in the image.
            failure: of the photograph.
        """
        outcomes = {UNREADABLE: unread} if unread else {}
        if found is not None:
            outcomes |= {name: count for name, count in found.counts.items() if count}
        steps, before, after = (
            _histogram(found, name) for name in ("steps", "before", "after")
        )
        return ImageResult(
            outcomes=outcomes,
            references=references,
            steps=steps,
            before=before,
            after=after,
            failure=failure,
        )

    def to_json(self, name: str) -> dict[str, Any]:
        """The line of the log."""
        line = {
            "name": name,
            "outcomes": dict(self.outcomes),
            "references": self.references,
            "steps": _to_pairs(self.steps),
            "before": _to_pairs(self.before),
            "after": _to_pairs(self.after),
        }
        return line | ({"failure": self.failure} if self.failure else {})


def read_results(folder: Path) -> dict[str, ImageResult]:
    """The results of images by name; the last line of a name counts."""
    found = {}
    for line in read_log(folder / LOG_NAME):
        try:
            found[str(line["name"])] = ImageResult(
                outcomes={str(k): int(v) for k, v in line["outcomes"].items()},
                references=int(line["references"]),
                steps=Counter(dict(line["steps"])),
                before=Counter(dict(line["before"])),
                after=Counter(dict(line["after"])),
                failure=str(line.get("failure", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # an image without a result is refined again
    return found


def total_details(results: Iterable[ImageResult]) -> dict[str, Any]:
    """Numbers of all images for a report."""
    outcomes: Counter[str] = Counter()
    steps, before, after = Counter[int](), Counter[int](), Counter[int]()
    references = 0
    for one in results:
        outcomes.update(one.outcomes)
        references += one.references
        steps.update(one.steps)
        before.update(one.before)
        after.update(one.after)
    moved = outcomes.pop(MOVED, 0)
    return {
        "tracks": references,
        "observations": references + moved + outcomes.total(),
        "moved": moved,
        "kept": dict(sorted(outcomes.items())),
        "step_median": _quantile(steps, 0.5),
        "step_95": _quantile(steps, 0.95),
        "similarity_before": _quantile(before, 0.5),
        "similarity_after": _quantile(after, 0.5),
    }


def _histogram(found: Registration | None, name: str) -> Histogram:
    """Of a number of the keypoints that moved."""
    if found is None:
        return Counter()
    values: npt.NDArray[np.floating] = getattr(found, name)[found.moved]
    bins, counts = np.unique(np.rint(values / BIN).astype(np.int64), return_counts=True)
    return Counter(dict(zip(bins.tolist(), counts.tolist())))


def _to_pairs(histogram: Histogram) -> list[tuple[int, int]]:
    return sorted(histogram.items())


def _quantile(histogram: Histogram, share: float) -> float | None:
    """The value that this share of the counted ones does not exceed."""
    if not histogram:
        return None
    bins = np.array(sorted(histogram))
    counts = np.cumsum([histogram[number] for number in bins.tolist()])
    place = np.searchsorted(counts, share * counts[-1])
    return round(float(bins[place]) * BIN, 2)
