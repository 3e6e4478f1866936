"""Localization: matches of queries with map images in, camera poses out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.errors import (
    DatasetError,
)
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.sparse_map import (
    SparseMap,
    check_keypoints_type,
    map_files,
    read_sparse_map,
)
from r2d2_kapture.io.kapture.camera_sizes import unlike_sensors
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_provenance import (
    refuse_other_images,
    refuse_stale_matches,
)
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.match_store import MatchTable, open_matches
from r2d2_kapture.io.kapture.overlaps import hidden_matches
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.kapture.pixel_origins import (
    find_camera_origin,
    origins_text,
    place_keypoints,
)
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import open_ledger, write_report
from r2d2_kapture.io.outputs.manifest import FILE_NAME
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.background_io import read_ahead
from r2d2_kapture.stages.localize.cameras import (
    QueryFrame,
    QueryImage,
    query_frames,
    with_exif,
)
from r2d2_kapture.stages.localize.frames import (
    Evidence,
    gather_evidence,
    inputs_digest,
    localize_frame,
)
from r2d2_kapture.stages.localize.matches import (
    QueryMatches,
    Retrieval,
    no_matches,
    read_query_matches,
    refuse_moved_keypoints,
    retrieval_warnings,
    retrieve,
)
from r2d2_kapture.stages.localize.output import (
    CONTENTS,
    REPORT_NAME,
    localized_manifest,
    refuse_inputs,
)
from r2d2_kapture.stages.localize.results import (
    POSES_NAME,
    QUERIES_FOLDER,
    QueryResult,
    read_localized,
    result_path,
    write_localized,
    write_result,
)
from r2d2_kapture.types import Failure, Report


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
        unlike: queries whose file and camera differ in size; they fail.
        output: folder of the outcomes.
        force: compute existing outcomes again.
    """

    config: LocalizeConfig
    origin: PixelOrigin
    sparse_map: SparseMap
    keypoints: FeatureTable
    matches: MatchTable
    retrieval: Retrieval
    unlike: Mapping[str, Failure]
    output: Path
    force: bool

    def localize(self, frame: QueryFrame) -> FrameOutcome:
        """Localize a frame and write its outcome, unless it exists.

        Failed frames are tried again.

        Raises:
            OutputError: the file system refused.
        """
        evidence = self._evidence(frame)
        if not self.force:
            there = self._there(evidence)
            if len(there) == len(frame.images):
                return FrameOutcome(results=there, fresh=False)
        results = localize_frame(evidence, self.config, self.origin)
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
        return gather_evidence(frame, matches, self.sparse_map, self.config)

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
            read_localized(self.output, image.name)
            for image, matches in zip(evidence.frame.images, evidence.matches)
            if matches.error is None
        ]
        return tuple(r for r in known if r is not None and r.inputs == digest)


def run(
    config: LocalizeConfig,
    *,
    map_path: Path,
    query: DatasetOrPath,
    pairs: Path,
    features: Sequence[Path] = (),
    matches: Sequence[Path],
    output: Path,
    keypoints_type: str | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Estimate the camera poses of query images in a map, from matches with its images.

    Run it again to resume.

    Args:
        config: how poses are estimated and written.
        map_path: output of kapture_r2d2_map, another COLMAP model, or a kapture dataset
            with points3d and observations.
        query: kapture dataset of the queries; its poses are not used.
        pairs: list of pairs of query and map image by kapture_r2d2_pairs, 'name, name,
            score' (kapture) or 'name name' (hloc).
        features: kapture datasets or folders of local features by kapture_r2d2_extract,
            of the queries, and of the map images if available; by default the query
            dataset.
        matches: output of kapture_r2d2_match, or kapture datasets with matches.
        output: folder for a kapture dataset of the poses, ``poses.txt``, one JSON file
            per query in ``queries``, and ``report.json``.
        keypoints_type: of features and matches; by default the only existing one.
        options: how to run; ``workers`` frames are localized in parallel, without rigs.
            Poses do not depend on it.

    Returns:
        A report that counts query images.

    Raises:
        DatasetError: the dataset, map, features, matches or pairs cannot be used, no
            pair has a query, or the map was made with other keypoints.
        OutputError: the folder has poses of other settings or of another dataset, or
            other files; or it cannot be written.
        ReconstructionError: the map has no points.
    """
    started = time.monotonic()
    dataset = open_dataset(query)
    features = features or [dataset.root]
    keypoints = open_feature_table(features, "keypoints", keypoints_type)
    table = open_matches(matches, keypoints.type_name)
    retrieval = _retrieval(pairs, dataset, keypoints)
    finished = Finished.of(
        output / FINISHED_NAME,
        [dataclasses.asdict(config), dataclasses.asdict(retrieval)],
        (
            *dataset.files,
            *map_files(map_path),
            *keypoints.files(sorted(retrieval.images)),
            *table.files(retrieval.pairs),
        ),
    )
    if not options.force and (report := finished.report(started)):
        return report
    counted_from = find_camera_origin(dataset, config.camera_origin)
    origin = counted_from.origin
    frames = query_frames(dataset, origin, config)
    keypoints, warnings = place_keypoints(
        keypoints, config.keypoint_origin, dataset, counted_from
    )
    refuse_other_images(keypoints, dataset)
    check_keypoints_type(map_path, keypoints.type_name)
    localizer = Localizer(
        config=config,
        origin=origin,
        keypoints=keypoints,
        matches=table,
        retrieval=retrieval,
        unlike=unlike_sensors(dataset),
        sparse_map=read_sparse_map(map_path, keypoints.type_name),
        output=output,
        force=options.force,
    )
    refuse_stale_matches(table, keypoints, retrieval.images)
    refuse_moved_keypoints(localizer.sparse_map, keypoints, retrieval.images)
    refuse_inputs(output, [dataset.root, map_path, *features, *matches])
    manifest = localized_manifest(config, keypoints.type_name, dataset)
    with open_ledger(output, CONTENTS, manifest, options), quiet_pycolmap():
        outcomes = list(localize_frames(localizer, frames, options))
        # queries that a strict run does not reach keep their poses
        outcomes += map(localizer.recall, frames[len(outcomes) :])
        results = [result for outcome in outcomes for result in outcome.results]
        write_localized(output, dataset, results, config.format, origin)
        seconds = time.monotonic() - started
        report = _report(localizer, outcomes, dataset.left_out, seconds)
        report = dataclasses.replace(
            report, warnings=(*counted_from.warnings, *warnings, *report.warnings)
        )
        write_report(output / REPORT_NAME, report)
        if report.failed:  # these are tried again
            return report
        made = [output / name for name in (REPORT_NAME, POSES_NAME, FILE_NAME)]
        made += sorted((output / "sensors").glob("*.*"))
        made += [result_path(output, name) for name in dataset.image_names]
        return finished.note(report, made)


def localize_frames(
    localizer: Localizer, frames: Sequence[QueryFrame], options: RunOptions
) -> Iterator[FrameOutcome]:
    """The outcomes of frames, in order; with ``strict`` up to a failure."""
    total = sum(len(frame.images) for frame in frames)
    bar = Progress("localize", "query", total, shown=options.progress)
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


def _retrieval(pairs: Path, dataset: Dataset, known: FeatureTable) -> Retrieval:
    retrieval = retrieve(read_pairs(pairs, known), dataset.image_names)
    if not any(retrieval.of_query.values()):
        raise DatasetError(
            f"{pairs}: found no pair with an image of {dataset.root}, expected lines "
            "of query, map image, score; create the list with kapture_r2d2_pairs"
        )
    return retrieval


def _report(
    localizer: Localizer,
    outcomes: Sequence[FrameOutcome],
    left_out: tuple[Failure, ...],
    seconds: float,
) -> Report:
    fresh = [r for outcome in outcomes if outcome.fresh for r in outcome.results]
    kept = [r for outcome in outcomes if not outcome.fresh for r in outcome.results]
    localized = [r for r in (*fresh, *kept) if r.localized]
    doubtful = sum(result.verdict == "doubtful" for result in localized)
    return Report(
        stage="localize",
        unit="query",
        summary=f"{doubtful} doubtful" if doubtful else "",
        done=sum(result.localized for result in fresh),
        skipped=len(kept),
        failed=left_out
        + tuple(
            Failure(name=result.image, reason=result.reason)
            for result in fresh
            if result.reason is not None
        ),
        seconds=seconds,
        warnings=(
            *hidden_matches(localizer.matches),
            *retrieval_warnings(
                localizer.retrieval, localizer.sparse_map, localizer.matches
            ),
            *_warnings(localized),
        ),
        outputs=(localizer.output, localizer.output / POSES_NAME),
        details=_details(localizer, localized),
    )


def _warnings(localized: Iterable[QueryResult]) -> Iterator[str]:
    """The warning on doubtful poses, with the first three in order of names."""
    doubtful = sorted(
        (result for result in localized if result.verdict == "doubtful"),
        key=lambda result: result.image,
    )
    if doubtful:
        named = ", ".join(
            f"'{result.image}' ({'; '.join(result.doubts)})" for result in doubtful[:3]
        )
        yield (
            f"{len(doubtful)} of the written poses are doubtful: "
            f"{named}{', ...' if len(doubtful) > 3 else ''}; check them, see 'verdict' "
            f"in {QUERIES_FOLDER}/NAME.json"
        )


def _details(localizer: Localizer, localized: Sequence[QueryResult]) -> dict[str, Any]:
    medians: Mapping[str, Sequence[float]] = {
        "median_inliers": [result.inliers for result in localized],
        "median_correspondences": [result.correspondences for result in localized],
        "median_position_std": [
            result.position_std
            for result in localized
            if result.position_std is not None
        ],
    }
    unknown = localizer.retrieval.unknown
    return {
        "localized": sum(result.verdict != "doubtful" for result in localized),
        "doubtful": sum(result.verdict == "doubtful" for result in localized),
        "in_rigs": sum(bool(result.rig) for result in localized),
        "with_focal_length_found": sum(r.focal_length != "fixed" for r in localized),
        **{
            name: round(float(np.median(values)), 4) if values else None
            for name, values in medians.items()
        },
        "map_images": len(localizer.sparse_map.images),
        "map_points": len(localizer.sparse_map.points),
        "camera_origin": localizer.origin,
        "keypoint_origin": origins_text(localizer.keypoints),
        **(
            {"pairs_of_no_query": len(unknown), "such_as": unknown[0]}
            if unknown
            else {}
        ),
    }
