"""Pairs by matching few features of small images.

Features, matches and what candidates are chosen by are kept in the folder of computed
global features, so that a run resumes, and lists of mapping images and of queries share
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pycolmap
import torch

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.match import MutualNearestConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.pairs import PairList
from r2d2_kapture.matching.matcher import Matcher, MatchInput
from r2d2_kapture.matching.mutual_nn import match_mutual_nearest
from r2d2_kapture.stages import extract
from r2d2_kapture.stages.match import run_matcher
from r2d2_kapture.stages.pairs.inputs import (
    PairInputs,
    Selected,
    every_pair,
)
from r2d2_kapture.stages.pairs.similarity import (
    aggregate_local_features,
    local_features,
    similar_images,
)
from r2d2_kapture.types import PairMatches

MIN_SIZE = 256
"""Longest side in pixels below which no level is searched."""
MAX_ERROR = 1 / 128
"""Greatest distance of a match to its epipolar line, as a share of the longest side of
the small images: 4 pixels of 512."""
MAX_TRIALS = 1000
"""Samples of RANSAC: enough for half of the matches to be right."""
DEVIATIONS = 2.0
"""By which inliers exceed those of shuffled matches. By default none of 1763 pairs of
photographs of different places does, and all but 2 of 166 pairs of one building do.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedNearestConfig(MutualNearestConfig):
    """Mutual nearest neighbours that agree with a fundamental matrix.

    Attributes:
        size: longest side of an image in pixels.
        max_error: greatest distance of a match to its epipolar line, as a share of it.
        max_trials: of RANSAC.
        deviations: of the number of inliers of shuffled matches, taken as Poisson's,
            by which those of a pair exceed it; others are left without matches.
        seed: of RANSAC, and of the shuffling.
    """

    size: int
    max_error: float = MAX_ERROR
    max_trials: int = MAX_TRIALS
    deviations: float = DEVIATIONS
    seed: int = 0


class VerifiedNearest(Matcher):
    """Mutual nearest neighbours, and of these the inliers of a fundamental matrix.

    Some of any few matches agree with the best of many matrices. How many they are
    depends on their number and on where the keypoints lie, so the same keypoints,
    matched at random, show what chance gives.
    """

    settings_class: ClassVar[type] = VerifiedNearestConfig
    needs_keypoints: ClassVar[bool] = True

    def __init__(self, settings: VerifiedNearestConfig) -> None:
        self.settings = settings

    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        """Match two images; scores are cosine similarities."""
        matches = match_mutual_nearest(features1.descriptors, features2.descriptors)
        points1, points2 = (
            self._small(features)[rows]
            for features, rows in zip((features1, features2), matches.indices.T)
        )
        inliers = self._inliers(points1, points2)
        shuffled = np.random.default_rng(self.settings.seed).permutation(points2)
        chance = self._inliers(points1, shuffled).sum()
        if inliers.sum() <= chance + self.settings.deviations * chance**0.5:
            inliers[:] = False
        return PairMatches(
            indices=matches.indices[inliers], scores=matches.scores[inliers]
        )

    def _inliers(
        self, points1: npt.NDArray[np.float64], points2: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """(N,) which of the matches of (N, 2) points agree with the best geometry."""
        options = pycolmap.RANSACOptions(
            max_error=self.settings.max_error * self.settings.size,
            min_num_trials=min(100, self.settings.max_trials),
            max_num_trials=self.settings.max_trials,
            random_seed=self.settings.seed,
            num_threads=1,
        )
        found = pycolmap.estimate_fundamental_matrix(points1, points2, options)
        if found is None:
            return np.zeros(len(points1), bool)
        return np.array(found["inlier_mask"], bool)

    def _small(self, features: MatchInput) -> npt.NDArray[np.float64]:
        """(N, 2) keypoints in pixels of the small image."""
        longest = max(features.image_size or (self.settings.size,))
        xy = features.keypoints if features.keypoints is not None else torch.zeros(0, 2)
        return np.asarray(xy.double().cpu()) * (self.settings.size / longest)


def select_by_low_resolution(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Images with many matches at low resolution that agree with a geometry."""
    extractor = low_resolution(config)
    name = f"{extractor.label}_{config.lowres_size}_{config.lowres_keypoints}"
    extracted = [
        extract.run(
            extractor,
            kapture_root=dataset,
            output=inputs.described,
            keypoints_type=name,
            store=inputs.store,
            options=inputs.options,
        )
        for dataset in (inputs.mapping, inputs.query)
        if dataset is not None
    ]
    failed = {item.name: item for report in extracted for item in report.failed}
    small = dataclasses.replace(
        inputs,
        mapping=without(inputs.mapping, failed),
        query=None if inputs.query is None else without(inputs.query, failed),
        features=(inputs.described,),
        keypoints_type=name,
        descriptors_type=name,
    )
    found = candidates(config, small)
    listed = found.pairs.unique()
    matched = run_matcher(
        VerifiedNearest(
            VerifiedNearestConfig(size=config.lowres_size, seed=config.seed)
        ),
        tables=local_features(small),
        pairs=listed,
        output=inputs.described,
        device=extractor.runtime.device,
        options=inputs.options,
        store=inputs.store,
    )
    return Selected(
        pairs=best_matched(config, small, listed),
        failed=(*failed.values(), *found.failed, *matched.failed),
        details={
            "images_extracted": sum(report.done for report in extracted),
            "candidate_pairs": len(listed),
            "candidate_pairs_matched": matched.done,
            "low_resolution_features": str(inputs.described),
        },
        warnings=(
            *(warning for report in extracted for warning in report.warnings),
            *found.warnings,
        ),
    )


def low_resolution(config: PairsConfig) -> Extractor:
    """The bundled model, on small images and for few keypoints."""
    settings = R2D2Config(
        min_size=min(MIN_SIZE, config.lowres_size),
        max_size=config.lowres_size,
        top_k=config.lowres_keypoints,
    )
    _, weights = load_weights()
    return build_extractor(ExtractConfig(extractor=settings), weights)


def without(dataset: Dataset, names: Container[str]) -> Dataset:
    """A dataset without some of its images."""
    kept = tuple(name for name in dataset.image_names if name not in names)
    return dataclasses.replace(dataset, image_names=kept)


def candidates(config: PairsConfig, inputs: PairInputs) -> Selected:
    """The pairs to match: all, or the most similar ones of each image.

    Args:
        config: their number for each image.
        inputs: images, and their small features.
    """
    count = config.lowres_candidates
    if not count or len(inputs.mapping_names) <= count + 1:
        return Selected(pairs=every_pair(config, inputs))
    similar = dataclasses.replace(config, method="local", top_k=count, min_score=None)
    described = aggregate_local_features(similar, inputs)
    return similar_images(similar, inputs, described)


def best_matched(config: PairsConfig, inputs: PairInputs, pairs: PairList) -> PairList:
    """The pairs of each image with the most matches; those without are left out."""
    table = find_matches([inputs.described], str(inputs.keypoints_type))
    counts = np.array([table.count(*pair.names) or 0 for pair in pairs], np.float64)
    scored = dataclasses.replace(pairs, scores=counts).where(counts > 0)
    if not config.partners:
        return scored
    mutual = [] if inputs.query else [scored.swapped()]
    return PairList.joined([scored, *mutual]).best_of_each(config.partners)
