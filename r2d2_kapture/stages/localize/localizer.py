"""Localizes frames, each on its own, and keeps their outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.background_io import read_ahead
from r2d2_kapture.stages.localize.cameras import QueryFrame, QueryImage, with_exif
from r2d2_kapture.stages.localize.frames import (
    Evidence,
    gather_evidence,
    inputs_digest,
    localize_frame,
)
from r2d2_kapture.stages.localize.last_pose import Helpers
from r2d2_kapture.stages.localize.matches import (
    QueryMatches,
    Retrieval,
    no_matches,
    read_query_matches,
)
from r2d2_kapture.stages.localize.positions import Places
from r2d2_kapture.stages.localize.results import (
    QueryResult,
    read_localized,
    read_result,
    write_result,
)
from r2d2_kapture.types import Failure


@dataclass(frozen=True, kw_only=True)
class FrameOutcome:
    """The outcome of the images of a frame.

    Attributes:
        results: one per image; those without a pose may be left out if not fresh.
        fresh: whether they were computed by this run.
    """

    results: tuple[QueryResult, ...]
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class Localizer:
    """Localizes frames independently; may be used by several threads.

    Attributes:
        config: settings.
        origin: pixel origin of the principal points of the query dataset.
        sparse_map: the map.
        keypoints: of queries, and of map images if available.
        matches: of queries with map images.
        retrieval: partners of the queries.
        places: of poses in the map on Earth.
        helpers: what finds more than a first pose was estimated from.
        unlike: queries whose file and camera differ in size; they fail.
        output: folder of the outcomes.
        force: compute existing outcomes again.
        whole: folder of all outcomes, where those are of a slice.
        retries: whether frames that failed are tried again.
    """

    config: LocalizeConfig
    origin: PixelOrigin
    sparse_map: SparseMap
    keypoints: FeatureTable
    matches: MatchTable
    retrieval: Retrieval
    places: Places
    helpers: Helpers
    unlike: Mapping[str, Failure]
    output: Path
    force: bool
    whole: Path | None = None
    retries: bool = True

    def localize(self, frame: QueryFrame) -> FrameOutcome:
        """Localize a frame and write its outcome, unless it exists.

        Failed frames are tried again, unless slices are put together.

        Raises:
            OutputError: the file system refused.
        """
        evidence = self._evidence(frame)
        if not self.force:
            there = self._there(evidence)
            if len(there) == len(frame.images):
                return FrameOutcome(results=there, fresh=False)
        found = localize_frame(evidence, self.config, self.origin)
        results = tuple(map(self.places.of, found))
        for result in results:
            write_result(self.output, result)
        return FrameOutcome(results=results, fresh=True)

    def recall(self, frame: QueryFrame) -> FrameOutcome:
        """Existing poses of a frame that are up to date."""
        results = self._there(self._evidence(frame))
        return FrameOutcome(results=results, fresh=False)

    def _evidence(self, frame: QueryFrame) -> Evidence:
        images = tuple(map(with_exif, frame.images))
        matches = [self._matches(image) for image in images]
        frame = dataclasses.replace(frame, images=images)
        return gather_evidence(
            frame, matches, self.sparse_map, self.config, self.helpers
        )

    def _matches(self, image: QueryImage) -> QueryMatches:
        if image.name in self.unlike:
            return no_matches(error=self.unlike[image.name].reason)
        return read_query_matches(
            image.name,
            (image.camera.width, image.camera.height),
            self.retrieval.of_query[image.name],
            self.sparse_map,
            self.keypoints,
            self.matches,
        )

    def _there(self, evidence: Evidence) -> tuple[QueryResult, ...]:
        digest = inputs_digest(evidence, self.config)
        known = [
            self._known(image.name)
            for image, matches in zip(evidence.frame.images, evidence.matches)
            if matches.error is None
        ]
        return tuple(
            result
            for result in known
            if result is not None
            and result.inputs == digest
            and result == self.places.of(result)
        )

    def _known(self, name: str) -> QueryResult | None:
        """The outcome of a query that is there, in a slice or in the whole."""
        read = read_localized if self.retries else read_result
        here = read(self.output, name)
        if here is None and self.whole is not None:
            return read(self.whole, name)
        return here


def localize_frames(
    localizer: Localizer, frames: Sequence[QueryFrame], options: RunOptions
) -> Iterator[FrameOutcome]:
    """The outcomes of frames, in order; with ``strict`` up to a failure."""
    total = sum(len(frame.images) for frame in frames)
    bar = Progress(
        "localize",
        "query",
        total,
        shown=options.progress,
        also=options.on_progress,
    )
    # in parallel, pycolmap's poses of rigs are not reproducible
    in_turn = any(len(frame.images) > 1 for frame in frames)
    workers = 1 if in_turn else options.workers
    working = read_ahead(frames, localizer.localize, workers)
    with bar, closing(working):
        for _, future in working:
            outcome = future.result()
            bar.update(len(outcome.results))
            yield outcome
            if options.strict and not all(r.localized for r in outcome.results):
                return
