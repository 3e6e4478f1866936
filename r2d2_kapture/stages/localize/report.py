"""The report of localization: counts, warnings, and what is particular to its run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.overlaps import hidden_matches
from r2d2_kapture.io.kapture.pixel_origins import origins_text
from r2d2_kapture.stages.localize.localizer import FrameOutcome, Localizer
from r2d2_kapture.stages.localize.matches import retrieval_warnings
from r2d2_kapture.stages.localize.point_search import is_searched
from r2d2_kapture.stages.localize.positions import positions_files
from r2d2_kapture.stages.localize.results import (
    POSES_NAME,
    QUERIES_FOLDER,
    QueryResult,
)
from r2d2_kapture.stages.turned_images import WAY_OUT, by_chance, seen_as_stored
from r2d2_kapture.types import MAP_UNIT, Failure, Report, counted, some_names


def localization_report(
    localizer: Localizer,
    outcomes: Sequence[FrameOutcome],
    dataset: Dataset,
    seconds: float,
) -> Report:
    """The report of a run.

    Args:
        localizer: of the run.
        outcomes: of its frames.
        dataset: of the queries.
        seconds: that it took.
    """
    fresh = [r for outcome in outcomes if outcome.fresh for r in outcome.results]
    kept = [r for outcome in outcomes if not outcome.fresh for r in outcome.results]
    localized = [r for r in (*fresh, *kept) if r.localized]
    doubtful = sum(result.verdict == "doubtful" for result in localized)
    return Report(
        stage="localize",
        unit="query",
        summary=f"{doubtful} doubtful" if doubtful else "",
        done=sum(result.localized for result in fresh),
        skipped=sum(result.localized for result in kept),
        failed=dataset.left_out
        + tuple(
            Failure(name=result.image, reason=result.reason)
            for outcome in outcomes
            for result in outcome.results
            if result.reason is not None
        ),
        seconds=seconds,
        warnings=(
            *hidden_matches(localizer.matches),
            *retrieval_warnings(
                localizer.retrieval, localizer.sparse_map, localizer.matches
            ),
            *_warnings(localized),
            *_maybe_turned(localizer, (*fresh, *kept)),
            *_not_searched(localizer),
            *_not_refined(localizer, dataset, localized),
        ),
        outputs=(
            localizer.output,
            localizer.output / POSES_NAME,
            *positions_files(localizer.output),
        ),
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


def _maybe_turned(
    localizer: Localizer, results: Iterable[QueryResult]
) -> Iterator[str]:
    """The warning on queries of which no more than chance agrees with the map."""
    names = sorted(
        result.image
        for result in results
        if result.verdict != "good"
        and result.correspondences
        and by_chance(result.inliers, result.correspondences)
    )
    folders = [folder.path for folder in localizer.keypoints.folders]
    if names and seen_as_stored(folders):
        yield (
            f"{counted(len(names), 'query')} agreed with the map no more than by "
            f"chance: {some_names(names)}; {WAY_OUT}, and the map's as well"
        )


def _not_searched(localizer: Localizer) -> Iterator[str]:
    """The warning on a second pass that was asked for, but cannot be made."""
    if localizer.config.second_pass == "on" and localizer.helpers.search is None:
        yield (
            "--second-pass on: found no descriptors of the map's images, and no second "
            "pass is made; give their features to --features"
        )


def _not_refined(
    localizer: Localizer, dataset: Dataset, localized: Iterable[QueryResult]
) -> Iterator[str]:
    """The warning on queries whose image is not there."""
    names = sorted(
        result.image
        for result in localized
        if localizer.helpers.registrar is not None
        and not dataset.image_path(result.image).is_file()
    )
    if names:
        yield (
            f"{counted(len(names), 'query')} cannot be refined without image file: "
            f"{some_names(names)}; expected in {dataset.image_path('')}"
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
    if localizer.places.georeference is not None:
        distances = [r.gnss_distance for r in localized if r.gnss_distance is not None]
        medians = {**medians, "median_gnss_distance": distances}
    unknown = localizer.retrieval.unknown
    return {
        "localized": sum(result.verdict != "doubtful" for result in localized),
        "doubtful": sum(result.verdict == "doubtful" for result in localized),
        MAP_UNIT: localizer.places.unit,
        "in_rigs": sum(bool(result.rig) for result in localized),
        "with_focal_length_found": sum(r.focal_length != "fixed" for r in localized),
        **_rounded(medians),
        "map_images": len(localizer.sparse_map.images),
        "map_points": len(localizer.sparse_map.points),
        "camera_origin": localizer.origin,
        "keypoint_origin": origins_text(localizer.keypoints),
        **_search_details(localizer, localized),
        **_refinement_details(localizer, localized),
        **(
            {"pairs_of_no_query": len(unknown), "such_as": unknown[0]}
            if unknown
            else {}
        ),
    }


def _search_details(
    localizer: Localizer, localized: Sequence[QueryResult]
) -> dict[str, Any]:
    refined = localizer.helpers.registrar is not None
    if not is_searched(localizer.config, refined=refined):
        return {}
    if localizer.helpers.search is None:
        return {"second_pass": "left out, found no descriptors"}
    added = [result.added for result in localized if result.added is not None]
    return {"second_pass": len(added), **_rounded({"median_added": added})}


def _refinement_details(
    localizer: Localizer, localized: Sequence[QueryResult]
) -> dict[str, Any]:
    if localizer.config.refine == "off":
        return {}
    if localizer.helpers.registrar is None:
        return {"patches": "none in the map"}
    made = [result.refined for result in localized if result.refined is not None]
    medians = {
        "median_step": [one.median_step for one in made],
        "median_error_before": [one.before for one in made],
        "median_error_after": [one.after for one in made],
    }
    return {
        "refined": len(made),
        "keypoints_registered": sum(one.registered for one in made),
        "keypoints_moved": sum(one.moved for one in made),
        **_rounded(medians),
    }


def _rounded(medians: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {
        name: round(float(np.median(values)), 4) if values else None
        for name, values in medians.items()
    }
