"""All sections of a page except the 3D view, as far as a subject has data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2d2_kapture.config.evaluate import DEFAULT_THRESHOLDS
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.map_statistics import MapStatistics
from r2d2_kapture.io.colmap.pair_counts import read_pair_counts
from r2d2_kapture.io.georeference import read_georeference
from r2d2_kapture.io.map_unit import read_map_unit
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.localization import localization_section
from r2d2_kapture.stages.report.map_statistics import map_section
from r2d2_kapture.stages.report.match_matrix import (
    covisibility_section,
    matches_section,
    query_matrix,
)
from r2d2_kapture.stages.report.outcomes import all_thresholds, judge
from r2d2_kapture.stages.report.query_views import QueryViews
from r2d2_kapture.stages.report.refinement import refinement_sections
from r2d2_kapture.stages.report.subject import Subject
from r2d2_kapture.stages.report.summary import MAP_STAGES, summary_section

COLMAP_REPORTS = ("../*_r2d2/colmap_report.json", "../../*_r2d2/colmap_report.json")
"""Where kapture_r2d2_colmap reports on the models of a folder, or on one of them."""
DATABASES = ("*.db", "../*.db", "../../*.db")
"""Paths of a map's database relative to its folder: a pipeline's, and COLMAP's own."""


def content_sections(subject: Subject) -> list[page.Section]:
    """The sections of a subject, the summary first; sections without data are left
    out."""
    statistics = subject.statistics
    summary = subject.pipeline or _summary_of_map(subject.map)
    sections = [summary_section(summary)] if summary else []
    sections.append(
        map_section(
            statistics,
            subject.images,
            given=_given(summary),
            georeference=read_georeference(subject.map),
        )
    )
    work = subject.work or summary.get("work")
    sections += refinement_sections(summary.get("stages", []), work)
    views = subject.query_views
    if subject.queries:
        sections.append(_localization(subject, views))
    return [*sections, *_matches(subject, statistics, views)]


def _summary_of_map(folder: Path) -> dict[str, Any]:
    """The report of the command that made a map as that of a one-stage pipeline."""
    folder = folder.resolve()
    of_colmap = [path for place in COLMAP_REPORTS for path in folder.glob(place)]
    for path in (folder / "report.json", *sorted(of_colmap)):
        content = read_json(path)
        with suppress(TypeError, KeyError):
            made = {Path(output).name for output in content["outputs"]}
            ours = not made.isdisjoint((folder.name, folder.parent.name))
            if content["stage"] == "map" or (content["stage"] == "colmap" and ours):
                shared = {name: content[name] for name in ("failed", "warnings")}
                return {"stages": [content], "work": path.parent, **shared}
    return {}


def databases(subject: Subject) -> list[Path]:
    """Databases that the map may be of."""
    folder = subject.map.resolve()
    return [path for pattern in DATABASES for path in sorted(folder.glob(pattern))]


def _given(summary: Mapping[str, Any]) -> int | None:
    """Number of input images of the map, as the stage reports it."""
    for stage in summary.get("stages", []):
        if stage["stage"] in MAP_STAGES:
            return int(stage["images"]) if "images" in stage else None
    return None


def _localization(subject: Subject, views: Mapping[str, QueryViews]) -> page.Section:
    settings: Mapping[str, Any] = subject.pipeline.get("settings", {}).get(
        "evaluate", {}
    )
    given = settings.get("thresholds", DEFAULT_THRESHOLDS)
    thresholds = all_thresholds([(near, turn) for near, turn in given])
    images = dict(subject.images)
    for queries in subject.queries:
        images |= queries.images
    judged = [
        judge(
            queries,
            thresholds=thresholds,
            align=not subject.true_frame,
        )
        for queries in subject.queries
    ]
    unit = read_map_unit(subject.map)
    return localization_section(judged, views, images, thresholds, unit)


def _matches(
    subject: Subject, statistics: MapStatistics, views: Mapping[str, QueryViews]
) -> list[page.Section]:
    counts = {name: found.match_counts() for name, found in views.items()}
    of_queries = [query_matrix(name, pairs) for name, pairs in counts.items() if pairs]
    section = _mapping_matches(subject, statistics)
    if section is None:
        return []
    html = page.join([section.html, *of_queries])
    return [dataclasses.replace(section, html=html)]


def _mapping_matches(
    subject: Subject, statistics: MapStatistics
) -> page.Section | None:
    names = {image.name for image in statistics.images}
    for database in databases(subject):
        with suppress(DatasetError):  # a file of another kind
            counts = read_pair_counts(database)
            if names.issubset(counts.names):
                return matches_section(counts)
    return covisibility_section(statistics) if len(statistics.images) > 1 else None
