"""Finds the quarter turns in which images match each other.

Small copies are extracted as EXIF has them and matched with their nearest neighbours,
by VLAD; those that few matches connect to the others are tried in the other turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.config.rotations import Rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.extraction import Extractor, Image
from r2d2_kapture.core.pyramid import shrink
from r2d2_kapture.core.quarter_turns import turned
from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import read_reduced
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.matching.matcher import match_features
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.matching.turn_graph import (
    TurnedPair,
    connected,
    quarter,
    solve_turns,
)
from r2d2_kapture.matching.vlad import learn_centres, vlad
from r2d2_kapture.stages.background_io import read_ahead
from r2d2_kapture.types import FloatArray, LocalFeatures

SIDE = 480
KEYPOINTS = 500
"""Of the small copies: longest side in pixels, and the best keypoints."""
PARTNERS = 6
"""Nearest neighbours that an image is matched with."""
WORDS = 32
SAMPLE = 100_000
"""Visual words, and the greatest number of descriptors that they are learned from."""
SEED = 0
MIN_INLIERS = 25
"""Of the geometry of two small copies. Of 90 pairs of photographs of the Reichstag, one
had 21 by chance in a wrong turn; 13 of 15 had 35 or more in the right one."""
MIN_TRIALS, MAX_TRIALS = 100, 1000
"""Of RANSAC."""
MAX_ERROR = 1 / 160
"""Of a match, as a share of the longest side: 3 pixels."""
LEAST_SHARE = 0.4
"""Of inliers among the matches."""
MAX_ANGLE = 45.0
"""Degrees by which two images that match are still turned against each other."""


@dataclass(frozen=True, kw_only=True)
class FixedImage:
    """An image whose turn is known."""

    path: Path
    turn: Turn


@dataclass(frozen=True, kw_only=True)
class FoundTurns:
    """The outcome of a search.

    Attributes:
        turns: by name, of the images that could be read.
        apart: names of those without a match in the largest connected part.
    """

    turns: dict[str, Turn]
    apart: tuple[str, ...]


def find_turns(
    extractor: Extractor,
    images: Mapping[str, Path],
    guesses: Mapping[str, Turn],
    rotations: Rotations,
    *,
    fixed: Mapping[str, FixedImage],
    options: RunOptions = RunOptions(),
) -> FoundTurns:
    """Find the turns of images by matching.

    Args:
        extractor: of the features.
        images: files by name.
        guesses: turns of these to begin with, among those of the rotations.
        rotations: turns to choose from.
        fixed: other images whose turns are known.
        options: how to run.
    """
    search = _Search(extractor, options)
    paths = {**images, **{name: item.path for name, item in fixed.items()}}
    begin = {**guesses, **{name: item.turn for name, item in fixed.items()}}
    search.see(paths, begin)
    there = {name: turn for name, turn in begin.items() if name in search.seen}
    known = {name: turn for name, turn in there.items() if name in fixed}
    asked = {name: turn for name, turn in there.items() if name not in fixed}
    pairs = search.pairs_as_seen(sorted(asked))
    parts = connected(there, pairs, known)
    lost = [name for part in parts[1:] for name in part]
    if lost:
        own = {name: part for part in map(frozenset, parts) for name in part}
        others = {
            name: [turn for turn in rotations.turns if turn != asked[name]]
            for name in lost
        }
        pairs += search.pairs_otherwise({n: paths[n] for n in lost}, others, own)
        parts = connected(there, pairs, known)
    return FoundTurns(
        turns=solve_turns(asked, pairs, known),
        apart=tuple(sorted(name for part in parts[1:] for name in part)),
    )


class _Search:
    """Small copies of images, and which of them match."""

    def __init__(self, extractor: Extractor, options: RunOptions) -> None:
        self._extractor = extractor
        self._options = options
        self._turns: dict[str, Turn] = {}
        self._centres: FloatArray = np.zeros((0, 0), np.float32)
        self._rows: FloatArray | None = None
        self.seen: dict[str, LocalFeatures] = {}

    def see(self, paths: Mapping[str, Path], turns: Mapping[str, Turn]) -> None:
        """Extract small copies in these turns, and learn to compare them."""
        for name, pixels in self._small(paths, "orient"):
            self.seen[name] = self._extract(pixels, turns[name])
        self._turns = {name: turns[name] for name in self.seen}
        if len(self.seen) <= PARTNERS + 1:
            return
        quota = max(SAMPLE // len(self.seen), 1)
        sample = np.concatenate(
            [item.unit_descriptors[:quota] for item in self.seen.values()]
        )
        if len(sample) < WORDS:
            return
        self._centres = learn_centres(sample, WORDS, SEED)
        self._rows = np.stack([self._describe(item) for item in self.seen.values()])

    def pairs_as_seen(self, names: Sequence[str]) -> list[TurnedPair]:
        """Verified pairs of these images with each other and with others."""
        chosen = {
            (min(name, partner), max(name, partner))
            for name in names
            for partner in self._partners(self.seen[name], frozenset({name}))
        }
        return self._verified(
            (one, self._turns[one], self.seen[one], other)
            for one, other in sorted(chosen)
        )

    def pairs_otherwise(
        self,
        paths: Mapping[str, Path],
        turns: Mapping[str, Sequence[Turn]],
        own: Mapping[str, frozenset[str]],
    ) -> list[TurnedPair]:
        """Verified pairs of images in other turns with images of other parts."""

        def candidates() -> Iterator[tuple[str, Turn, LocalFeatures, str]]:
            for name, pixels in self._small(paths, "turn"):
                for turn in turns[name]:
                    features = self._extract(pixels, turn)
                    for partner in self._partners(features, own[name]):
                        yield name, turn, features, partner

        return self._verified(candidates())

    def _small(
        self, paths: Mapping[str, Path], description: str
    ) -> Iterator[tuple[str, Image]]:
        """Small copies as stored; what cannot be read is left to extraction."""

        def load(name: str) -> Image:
            return shrink(read_reduced(paths[name], SIDE), SIDE)

        options = self._options
        loading = read_ahead(sorted(paths), load, options.workers)
        bar = Progress(description, "photograph", len(paths), shown=options.progress)
        with bar, closing(loading):
            for name, future in loading:
                bar.update()
                try:
                    yield name, future.result()
                except ImageError:
                    continue

    def _extract(self, pixels: Image, turn: Turn) -> LocalFeatures:
        features = self._extractor(turned(pixels, turn))
        # all of a set are in memory
        kind = "uint8" if features.descriptors.dtype == np.uint8 else "float16"
        return LocalFeatures(
            keypoints=features.keypoints[:KEYPOINTS],
            scales=features.scales[:KEYPOINTS],
            scores=features.scores[:KEYPOINTS],
            descriptors=features.descriptors[:KEYPOINTS].astype(kind),
            image_size=features.image_size,
        )

    def _describe(self, features: LocalFeatures) -> FloatArray:
        return vlad(features.unit_descriptors, self._centres)

    def _partners(self, features: LocalFeatures, own: frozenset[str]) -> list[str]:
        """Images to match with, but none of its own part."""
        names = list(self.seen)
        if self._rows is None:
            return [name for name in names if name not in own][:PARTNERS]
        likeness = self._rows @ self._describe(features)
        nearest = (names[i] for i in np.argsort(-likeness, kind="stable"))
        others = (name for name in nearest if name not in own)
        return list(itertools.islice(others, PARTNERS))

    def _verified(
        self, candidates: Iterable[tuple[str, Turn, LocalFeatures, str]]
    ) -> list[TurnedPair]:
        """Those of the pairs that agree: image, its turn and features, its partner."""

        def verify(candidate: tuple[str, Turn, LocalFeatures, str]) -> int:
            _, _, features, partner = candidate
            return agreement(features, self.seen[partner])

        found = []
        verifying = read_ahead(candidates, verify, self._options.workers)
        with closing(verifying):
            for (name, turn, _, partner), future in verifying:
                if inliers := future.result():
                    relative = quarter(turn - self._turns[partner])
                    found.append(TurnedPair(name, partner, relative, inliers))
        return found


def agreement(first: LocalFeatures, second: LocalFeatures) -> int:
    """Inliers of the epipolar geometry of two images; 0 where it may be one of wrong
    matches, or they match turned against each other, or mirrored."""
    rows = match_features(MutualNearest(), first, second).indices
    if len(rows) < MIN_INLIERS:
        return 0
    side = max(*first.image_size, *second.image_size)
    options = pycolmap.RANSACOptions(
        max_error=side * MAX_ERROR,
        max_num_trials=MAX_TRIALS,
        min_num_trials=MIN_TRIALS,
        random_seed=SEED,
        num_threads=1,
    )
    points = [
        item.keypoints[indices].astype(np.float64)
        for item, indices in zip((first, second), rows.T)
    ]
    found = pycolmap.estimate_fundamental_matrix(*points, options)
    if found is None:
        return 0
    inliers = np.asarray(found["inlier_mask"], bool)
    count = int(inliers.sum())
    if count < max(MIN_INLIERS, LEAST_SHARE * len(rows)):
        return 0
    one, other = (xy[inliers] @ np.array([1, 1j]) for xy in points)
    one, other = one - one.mean(), other - other.mean()
    # of the best similarity, as points of the complex plane
    rotation, reflection = np.vdot(one, other), one @ other
    if abs(reflection) > abs(rotation):
        return 0
    return count if abs(np.degrees(np.angle(rotation))) <= MAX_ANGLE else 0
