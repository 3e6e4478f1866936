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
from r2d2_kapture.refinement.registration import MOVED, OUTCOMES, count_outcomes
from r2d2_kapture.stages.refine.scratch import Found

LOG_NAME = "refined.jsonl"
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
        references: numbers of keypoints that are the first of their tracks, and stay.
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
        found: Found, steps: npt.NDArray[np.float64], unread: int, references: int
    ) -> ImageResult:
        """The result of a photograph.

        Args:
            found: in it.
            steps: (K, 2) pixels that these keypoints have moved in the end.
            unread: keypoints that could not be registered.
            references: keypoints that are the first of their tracks.
        """
        moved = found.outcomes == MOVED
        counts = count_outcomes(found.outcomes)
        outcomes = {str(name): count for name, count in counts.items() if count}
        return ImageResult(
            outcomes=outcomes | ({UNREADABLE: unread} if unread else {}),
            references=references,
            steps=_histogram(np.linalg.norm(steps[moved], axis=1)),
            before=_histogram(found.before[moved]),
            after=_histogram(found.after[moved]),
            failure=found.failure,
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


def read_steps(folder: Path) -> npt.NDArray[np.float32]:
    """Steps in pixels of all keypoints that moved, in order, to a BIN of a pixel.

    Args:
        folder: of refined keypoints.
    """
    steps: Histogram = Counter()
    for one in read_results(folder).values():
        steps.update(one.steps)
    bins = np.array(sorted(steps), np.float32)
    return np.repeat(bins * np.float32(BIN), [steps[int(b)] for b in bins])


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
    moved = outcomes.pop(OUTCOMES[MOVED], 0)
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


def _histogram(values: npt.NDArray[np.floating]) -> Histogram:
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
