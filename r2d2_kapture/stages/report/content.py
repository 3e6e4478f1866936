"""All sections of a page but the 3D view, of whatever a subject has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2d2_kapture.config.evaluate import DEFAULT_THRESHOLDS
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.map_statistics import MapStatistics, map_statistics
from r2d2_kapture.io.colmap.pair_counts import read_pair_counts
from r2d2_kapture.stages.report.localization import (
    all_thresholds,
    judge,
    localization_section,
)
from r2d2_kapture.stages.report.map_statistics import map_section
from r2d2_kapture.stages.report.match_matrix import (
    covisibility_section,
    matches_section,
)
from r2d2_kapture.stages.report.page import Section
from r2d2_kapture.stages.report.query_views import QueryViews, open_query_views
from r2d2_kapture.stages.report.subject import Subject
from r2d2_kapture.stages.report.summary import summary_section

DATABASES = ("database.db", "../database.db", "../../database.db")
"""Where a map's database may lie, from its folder: a pipeline's, and COLMAP's own."""


def content_sections(subject: Subject) -> list[Section]:
    """The sections of a subject, the summary first; those without data are left out."""
    statistics = map_statistics(subject.model)
    sections = [summary_section(subject.pipeline)] if subject.pipeline else []
    sections.append(map_section(statistics, subject.images, given=_given(subject)))
    if subject.queries:
        sections.append(_localization(subject))
    sections += _matches(subject, statistics)
    return sections


def _given(subject: Subject) -> int | None:
    """How many images the map was made of, as the stage reports it."""
    for stage in subject.pipeline.get("stages", []):
        if stage["stage"] == "map":
            return int(stage["images"]) if "images" in stage else None
    return None


def _localization(subject: Subject) -> Section:
    settings: Mapping[str, Any] = subject.pipeline.get("settings", {}).get(
        "evaluate", {}
    )
    given = settings.get("thresholds", DEFAULT_THRESHOLDS)
    thresholds = all_thresholds([(near, turn) for near, turn in given])
    images = dict(subject.images)
    views: dict[str, QueryViews] = {}
    for queries in subject.queries:
        images |= queries.images
        found = _views(subject, queries.name, queries.localized)
        if found is not None:
            views[queries.name] = found
    judged = [
        judge(
            queries,
            thresholds=thresholds,
            by_folder=settings.get("by") == "folder",
            align=not subject.true_frame,
        )
        for queries in subject.queries
    ]
    return localization_section(judged, views, images, thresholds)


def _views(subject: Subject, name: str, localized: Path) -> QueryViews | None:
    if subject.work is None:
        return None
    inputs = subject.pipeline.get("inputs", {})
    roots = [subject.work / "features", *map(Path, inputs.get("features", []))]
    datasets = [inputs.get("mapping"), *inputs.get("queries", {}).values()]
    roots += [Path(dataset["path"]) for dataset in datasets if dataset]
    return open_query_views(
        map_path=subject.map,
        features=roots,
        matches=subject.work / "matches",
        pairs=subject.work / "pairs" / f"{name}.txt",
        localized=localized,
        keypoints_type=inputs.get("keypoints_type"),
    )


def _matches(subject: Subject, statistics: MapStatistics) -> list[Section]:
    for place in DATABASES:
        database = (subject.map / place).resolve()
        if database.is_file():
            try:
                return [matches_section(read_pair_counts(database))]
            except DatasetError:  # of something else; the map itself has a matrix
                break
    return [covisibility_section(statistics)] if len(statistics.images) > 1 else []
