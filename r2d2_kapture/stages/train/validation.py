"""Validation during training: the extractor of the package on pairs of known truth,
and the loss of pairs that are not trained on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from r2d2_kapture.config.extract import EngineConfig
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.core.runtime import resolve_runtime
from r2d2_kapture.evaluation.curves import share_within
from r2d2_kapture.evaluation.projection import transfer_errors
from r2d2_kapture.evaluation.sequences import HomographySequence
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.matching.matcher import match_features
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.stages.train.methods import Method
from r2d2_kapture.training.data import PairDataset, WeightedSource
from r2d2_kapture.training.loop import LOSS, SCORE
from r2d2_kapture.training.validation import HomographyPair, homography_pair, seed_of
from r2d2_kapture.types import LocalFeatures

THRESHOLDS = (1.0, 3.0, 5.0)
PAIRS = 16
TOP_K = 1000
"""Keypoints of a built-in image of 480 pixels: the density of 5000 in 1024 pixels."""
SEQUENCE_TOP_K = 5000
POSED_PAIRS = 64
"""Number of pairs for the validation loss."""
POSED_SEED = 0
"""Seed of those pairs, so that runs of different seeds are comparable."""
BUILT_IN, POSED, FOLDER = "mma", "posed", "folder_mma"
"""Prefixes of the names of figures."""

Array = npt.NDArray[np.float64]
Extract = Callable[[npt.NDArray[np.uint8]], LocalFeatures]
Terms = dict[str, float]


class Validator:
    """Validation figures of a network; a higher ``score`` is better.

    Matching accuracy is measured without thresholds, since no keypoint of an untrained
    network passes the defaults; ``confident`` is the share of keypoints that would pass
    them.

    Args:
        method: the training method.
        pairs: built in.
        posed: pairs for the validation loss, or None.
        sequences: of a folder given by the user.
        engine: device and precision.
    """

    def __init__(
        self,
        method: Method,
        pairs: Sequence[HomographyPair],
        posed: PairDataset | None,
        sequences: Sequence[HomographySequence],
        engine: EngineConfig,
    ) -> None:
        self._method = method
        self._pairs = pairs
        self._posed = posed
        self._sequences = sequences
        self._engine = engine

    @property
    def scored_by(self) -> str:
        """The figures that determine the score."""
        if self._sequences:
            return FOLDER
        return BUILT_IN if self._posed is None else f"{POSED}_{LOSS}"

    def __call__(self, network: FeatureNetwork) -> dict[str, float]:
        """Figures by name; the last available one determines the ``score``: MMA of the
        built-in pairs, loss of the posed pairs, MMA of the folder.

        The score of an MMA is the mean at 1 and 3 px, that of a loss is its negative.
        """
        figures: dict[str, float] = {}
        scores: list[float] = []
        if self._pairs:
            mean, confident = self._on_pairs(self._extractor(network, TOP_K))
            figures |= _named(BUILT_IN, mean) | confident
            scores.append(float(mean[:2].mean()))
        if self._posed is not None:
            terms = self._on_posed(network, self._posed)
            figures |= {f"{POSED}_{name}": value for name, value in terms.items()}
            scores.append(-terms[LOSS])
        if self._sequences:
            mean = self._on_sequences(self._extractor(network, SEQUENCE_TOP_K))
            figures |= _named(FOLDER, mean)
            scores.append(float(mean[:2].mean()))
        return {**figures, SCORE: scores[-1]}

    def _extractor(self, network: FeatureNetwork, top_k: int) -> Extract:
        settings = self._method.extraction(top_k, self._engine)
        return build_extractor(settings, network)

    def _on_pairs(self, extract: Extract) -> tuple[Array, dict[str, float]]:
        threshold = self._method.confident
        accuracies, confident = [], []
        for pair in self._pairs:
            first, second = extract(pair.image1), extract(pair.image2)
            accuracies.append(_accuracy(first, second, pair.H_2_from_1))
            if threshold is not None:
                scores = np.concatenate([first.scores, second.scores])
                share = (scores >= threshold).sum() / max(len(scores), 1)
                confident.append(float(share))
        shares = {"confident": float(np.mean(confident))} if confident else {}
        return np.mean(accuracies, axis=0), shares

    @torch.no_grad()
    def _on_posed(self, network: FeatureNetwork, dataset: PairDataset) -> Terms:
        """Means of the terms of the loss over the pairs that contribute."""
        runtime = resolve_runtime(self._engine)
        objective = self._method.held_out_objective(mixed=runtime.precision == "bf16")
        counted = []
        for number in range(len(dataset)):
            batch = [part[None].to(runtime.device) for part in dataset[number]]
            generator = torch.Generator().manual_seed(number)
            found = objective(network, batch, generator)
            terms = {name: value.item() for name, value in found.items()}
            if self._method.counts(terms):
                counted.append(terms)
        if not counted:
            # such as of a network without features: worse than any other
            return {**dict.fromkeys(terms, math.nan), LOSS: math.inf}
        return {
            name: sum(terms[name] for terms in counted) / len(counted)
            for name in counted[0]
        }

    def _on_sequences(self, extract: Extract) -> Array:
        accuracies = []
        for sequence in self._sequences:
            first = extract(read_rgb(sequence.images[0]))
            for path, homography in zip(
                sequence.images[1:], sequence.homographies, strict=True
            ):
                second = extract(read_rgb(path))
                accuracies.append(_accuracy(first, second, homography))
        return np.asarray(np.mean(accuracies, axis=0))


def posed_pairs(
    sources: Sequence[WeightedSource], config: PairConfig, method: Method
) -> PairDataset | None:
    """Pairs for the validation loss, as hard as the last ones of a run.

    Args:
        sources: not used for training; without any there are no pairs.
        config: of the training pairs.
        method: the training method.
    """
    if not sources:
        return None
    return PairDataset(
        sources,
        dataclasses.replace(config, hold_steps=0, ramp_steps=0),
        seed=POSED_SEED,
        steps=POSED_PAIRS,
        pairs_per_step=1,
        normalize=method.normalize,
    )


def built_in_pairs(paths: Sequence[Path], root: Path) -> tuple[HomographyPair, ...]:
    """Pairs from mild to strong of photographs that are not trained on.

    Every photograph gives as many pairs as are needed for 16 in total.

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
    matches = match_features(MutualNearest(), features1, features2).indices
    points1 = features1.keypoints[matches[:, 0]]
    points2 = features2.keypoints[matches[:, 1]]
    return share_within(transfer_errors(points1, points2, H_2_from_1), THRESHOLDS)


def _named(group: str, accuracies: Array) -> dict[str, float]:
    return {
        f"{group}_{threshold:g}px": float(value)
        for threshold, value in zip(THRESHOLDS, accuracies, strict=True)
    }
