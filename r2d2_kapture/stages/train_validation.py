"""Validation during training: the extractor of the package on pairs of known truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.extract import EngineConfig, PyramidConfig, SelectionConfig
from r2d2_kapture.core.engine import resolve_runtime
from r2d2_kapture.evaluation.homography import (
    matching_errors,
    mean_matching_accuracy,
    mma,
)
from r2d2_kapture.evaluation.matching import mutual_nearest_neighbours
from r2d2_kapture.evaluation.sequences import HomographySequence
from r2d2_kapture.extractors.r2d2 import R2D2Extractor
from r2d2_kapture.io.images import read_rgb
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.training.loop import SCORE
from r2d2_kapture.training.validation import HomographyPair, homography_pair, seed_of
from r2d2_kapture.types import LocalFeatures

THRESHOLDS = (1.0, 3.0, 5.0)
PAIRS = 16
TOP_K = 1000
"""Keypoints of a built-in image of 480 pixels: as dense as 5000 in 1024 pixels."""
SEQUENCE_TOP_K = 5000
CONFIDENT = 0.49
"""Score of a keypoint at both default thresholds, 0.7 and 0.7."""

Array = npt.NDArray[np.float64]
Extract = Callable[[npt.NDArray[np.uint8]], LocalFeatures]


class Validator:
    """Matching accuracy of a network with the settings of extraction.

    The thresholds of the maps are 0 here, since an untrained network has no keypoint
    above the default ones; ``confident`` says what share of keypoints would pass them.

    Args:
        pairs: built in.
        sequences: of a folder of the user's; where there are any they give the score.
        engine: device and precision.
    """

    def __init__(
        self,
        pairs: Sequence[HomographyPair],
        sequences: Sequence[HomographySequence],
        engine: EngineConfig,
    ) -> None:
        self._pairs = pairs
        self._sequences = sequences
        self._engine = engine

    def __call__(self, network: DenseNetwork) -> dict[str, float]:
        """Figures by name, the mean of MMA at 1 and 3 px among them as ``score``."""
        figures: dict[str, float] = {}
        score: list[Array] = []
        if self._pairs:
            mean, confident = self._on_pairs(self._extractor(network, TOP_K))
            figures |= _named("mma", mean) | {"confident": confident}
            score.append(mean)
        if self._sequences:
            mean = self._on_sequences(self._extractor(network, SEQUENCE_TOP_K))
            figures |= _named("folder_mma", mean)
            score.append(mean)
        return {**figures, SCORE: float(score[-1][:2].mean())}

    def _extractor(self, network: DenseNetwork, top_k: int) -> Extract:
        selection = SelectionConfig(reliability_thr=0, repeatability_thr=0, top_k=top_k)
        return R2D2Extractor(
            network, PyramidConfig(), selection, resolve_runtime(self._engine)
        )

    def _on_pairs(self, extract: Extract) -> tuple[Array, float]:
        accuracies, confident = [], []
        for pair in self._pairs:
            first, second = extract(pair.image1), extract(pair.image2)
            accuracies.append(_accuracy(first, second, pair.H_2_from_1))
            scores = np.concatenate([first.scores, second.scores])
            confident.append(float((scores >= CONFIDENT).sum() / max(len(scores), 1)))
        return mean_matching_accuracy(accuracies), float(np.mean(confident))

    def _on_sequences(self, extract: Extract) -> Array:
        accuracies = []
        for sequence in self._sequences:
            first = extract(read_rgb(sequence.images[0]))
            for path, homography in zip(
                sequence.images[1:], sequence.homographies, strict=True
            ):
                second = extract(read_rgb(path))
                accuracies.append(_accuracy(first, second, homography))
        return mean_matching_accuracy(accuracies)


def built_in_pairs(paths: Sequence[Path], root: Path) -> tuple[HomographyPair, ...]:
    """Pairs from mild to strong of photographs that are not trained on.

    Every photograph makes as many pairs as are needed for 16 in all.

    Args:
        paths: of at least one photograph.
        root: folder that their names are relative to.

    Raises:
        ImageError: one cannot be read.
    """
    pairs = []
    for number in range(PAIRS):
        path = paths[number % len(paths)]
        name = path.relative_to(root).as_posix()
        pairs.append(
            homography_pair(
                name,
                read_rgb(path),
                strength=number / (PAIRS - 1),
                seed=seed_of(f"{number} {name}"),
            )
        )
    return tuple(pairs)


def _accuracy(
    features1: LocalFeatures, features2: LocalFeatures, H_2_from_1: Array
) -> Array:
    matches = mutual_nearest_neighbours(features1.descriptors, features2.descriptors)
    return mma(matching_errors(features1, features2, matches, H_2_from_1), THRESHOLDS)


def _named(group: str, accuracies: Array) -> dict[str, float]:
    return {
        f"{group}_{threshold:g}px": float(value)
        for threshold, value in zip(THRESHOLDS, accuracies, strict=True)
    }
