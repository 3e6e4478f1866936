"""The section of queries: number and accuracy of localized queries, and the worst
ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.evaluation.poses import (
    PoseEvaluation,
    PoseSummary,
    Thresholds,
)
from r2d2_kapture.io.images.decoding import RGBArray
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.stages.localize import QueryResult
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.charts import cumulative, histogram
from r2d2_kapture.stages.report.images import (
    jpeg_of_figure,
    read_image,
    shrunk,
)
from r2d2_kapture.stages.report.outcomes import Localized, Outcome
from r2d2_kapture.stages.report.query_views import QueryViews
from r2d2_kapture.types import OWN_UNITS, FloatArray

WORST, MOST_WORST = 6, 12
"""Greatest number of queries with drawn matches, per dataset and in total."""
LEAST_OF_HISTOGRAM = 10
"""Least number of poses for a histogram."""
PICTURE_SIDE = 1000
"""Longest side of these pictures in pixels."""
MOST_ROWS = 500
"""Greatest number of queries in a table."""
PLACE_TITLES = ("latitude", "longitude", "altitude (m)", "distance from GNSS (m)")


def localization_section(
    datasets: Sequence[Localized],
    views: Mapping[str, QueryViews],
    images: Mapping[str, Path],
    thresholds: Thresholds,
    unit: str = OWN_UNITS,
) -> page.Section:
    """The section of one or more query datasets.

    Args:
        datasets: with outcomes.
        views: by name of the dataset, if its matches can be drawn.
        images: the file of each query and map image by name; files may be missing.
        thresholds: of the verdicts on accuracy.
        unit: of the map.
    """
    blocks = [page.numbers(_verdicts(datasets)), *_verdicts_of_each(datasets)]
    blocks += _curves(datasets)
    blocks += _recall(datasets, thresholds)
    blocks += _inliers(datasets)
    drawn = min(WORST, max(1, MOST_WORST // len(datasets)))
    for dataset in datasets:
        found = views.get(dataset.name)
        blocks += _worst(dataset, drawn, found, images, len(datasets) > 1, unit)
    return page.Section("localization", "Localization", page.join(blocks))


def _verdicts(datasets: Sequence[Localized]) -> dict[str, str]:
    counts = Counter(one.verdict for item in datasets for one in item.outcomes)
    total = counts.total()
    figures = {"queries": f"{total:,}"}
    for verdict, title in (
        ("good", "good poses"),
        ("doubtful", "doubtful poses"),
        ("failed", "without a pose"),
    ):
        share = 100 * counts[verdict] / max(total, 1)
        figures[title] = f"{counts[verdict]:,} ({share:.0f} %)"
    return figures


def _verdicts_of_each(datasets: Sequence[Localized]) -> Iterator[Markup]:
    """A row for each dataset, if there are several."""
    if len(datasets) < 2:
        return
    rows: list[list[page.Cell]] = []
    for dataset in datasets:
        counts = Counter(one.verdict for one in dataset.outcomes)
        verdicts = [counts[verdict] for verdict in ("good", "doubtful", "failed")]
        rows.append([dataset.name, counts.total(), *verdicts])
    yield page.table(["queries", "images", "good", "doubtful", "without a pose"], rows)


def _curves(datasets: Sequence[Localized]) -> Iterator[Markup]:
    judged = {one.name: one.evaluation for one in datasets if one.evaluation}
    if not judged:
        return
    thresholds = next(iter(judged.values())).thresholds
    sides: tuple[tuple[str, Callable[[PoseEvaluation], list[float]], int], ...] = (
        ("position error (m)", lambda e: [one.position for one in e.errors], 0),
        ("rotation error (degrees)", lambda e: [one.rotation for one in e.errors], 1),
    )
    yield page.side_by_side(
        page.chart(
            cumulative(
                {name: np.array(errors(one)) for name, one in judged.items()},
                x_title=title,
                of="queries",
                marks=sorted({pair[column] for pair in thresholds}),
            ),
            f"Share of the queries within each {title}",
            340,
        )
        for title, errors, column in sides
    )
    yield page.paragraph(
        "Share of all queries with a true pose within the error; a curve ends at the "
        "share that has a pose. Dotted: the thresholds of the table.",
        "note",
    )


def _recall(datasets: Sequence[Localized], thresholds: Thresholds) -> Iterator[Markup]:
    rows: list[list[page.Cell]] = []
    for dataset in datasets:
        if dataset.evaluation is not None:
            groups = {"all": dataset.evaluation.total, **dataset.evaluation.conditions}
            for group, summary in groups.items():
                rows.append([dataset.name, group, *_recall_cells(summary)])
    if not rows:
        return
    yield page.heading("Recall")
    titles = ["queries", "images of", "images", "localized"]
    titles += ["median error (m)", "median error (deg)"]
    titles += [f"{near:g} m, {turn:g} deg (%)" for near, turn in thresholds]
    yield page.table(titles, rows)
    yield page.paragraph(
        "Medians: over localized images. Shares: of all images with a true pose, "
        "within both thresholds.",
        "note",
    )
    for note in dict.fromkeys(one.note for one in datasets if one.note):
        yield page.paragraph(note, "note")


def _recall_cells(summary: PoseSummary) -> list[page.Cell]:
    return [
        summary.images,
        summary.localized,
        summary.median_position,
        summary.median_rotation,
        *(f"{100 * share:.1f}" for share in summary.recall),
    ]


def _inliers(datasets: Sequence[Localized]) -> Iterator[Markup]:
    found = [one.result for item in datasets for one in item.outcomes if one.result]
    if len(found) >= LEAST_OF_HISTOGRAM:
        yield page.heading("Inliers")
        yield page.chart(
            histogram(
                np.array([result.inliers for result in found]),
                x_title="inliers of the pose",
                y_title="queries",
            ),
            "Histogram of the inliers of the poses",
            240,
        )


def _worst(
    dataset: Localized,
    count: int,
    views: QueryViews | None,
    images: Mapping[str, Path],
    named: bool,
    unit: str,
) -> Iterator[Markup]:
    of = f" of {dataset.name}" if named else ""
    worst = dataset.worst_first
    if views is not None:
        drawn = [_picture(one, views, images) for one in worst[:count]]
        shown = [picture for picture in drawn if picture is not None]
        if shown:
            yield page.heading(f"Worst queries{of}, with their best map image")
            yield page.paragraph(
                "First the query, then the map image with most inliers. Green: matches "
                "with points of the map that the pose projects to the keypoint; red: "
                "all others.",
                "note",
            )
            yield page.pictures(shown, "full")
    cut = f", the {MOST_ROWS} worst" if len(worst) > MOST_ROWS else ""
    yield page.folded(f"Table of the queries{of}{cut}", _table(worst[:MOST_ROWS], unit))


def _picture(
    one: Outcome, views: QueryViews, images: Mapping[str, Path]
) -> page.Picture | None:
    view = views.best(one.name, one.result)
    if view is None:
        return None
    pixels = [read_image(images.get(name)) for name in (one.name, view.image)]
    if pixels[0] is None or pixels[1] is None:
        return None
    query, xy_query = _small(pixels[0], view.xy_query)
    image, xy_image = _small(pixels[1], view.xy_image)
    figure = draw_matches(query, image, xy_query, xy_image, view.inliers)
    figure.axes[0].set_title("")  # too small to read; the note repeats it
    return page.Picture(
        jpeg=jpeg_of_figure(figure, PICTURE_SIDE),
        caption=f"{one.name} and {view.image}",
        note=f"{view.inliers.sum():,} of {len(view.inliers):,} matches are inliers; "
        + ": ".join(filter(None, [_error_text(one), _why(one)])),
    )


def _small(pixels: RGBArray, xy: FloatArray) -> tuple[RGBArray, FloatArray]:
    """An image downscaled to the displayed size, and positions in it."""
    small = shrunk(pixels, PICTURE_SIDE)
    columns = [
        image_from_level(xy[:, i], pixels.shape[1 - i], small.shape[1 - i], "corrected")
        for i in range(2)
    ]
    return small, np.column_stack(columns).astype(np.float32)


def _error_text(one: Outcome) -> str:
    if one.position is None or one.rotation is None or math.isinf(one.position):
        return one.verdict
    return f"{one.verdict}, {one.position:.3g} m and {one.rotation:.3g} degrees off"


def _why(one: Outcome) -> str:
    """Why there is no pose, or why the pose is doubtful."""
    if one.result is None:
        return one.reason or ""
    return "; ".join(one.result.doubts)


def _table(outcomes: Sequence[Outcome], unit: str) -> Markup:
    known = any(one.position is not None for one in outcomes)
    titles = ["query", "verdict", "inliers", "correspondences"]
    titles += ["position error (m)", "rotation error (deg)"] if known else []
    placed = any(one.result and one.result.wgs84 for one in outcomes)
    titles += [f"position deviation ({unit})"]
    titles += [*PLACE_TITLES] if placed else []
    titles += ["why"]
    rows = [
        [
            one.name,
            one.verdict,
            None if one.result is None else one.result.inliers,
            None if one.result is None else one.result.correspondences,
            *((_finite(one.position), _finite(one.rotation)) if known else ()),
            None if one.result is None else one.result.position_std,
            *(_place(one.result) if placed else ()),
            _why(one),
        ]
        for one in outcomes
    ]
    return page.table(titles, rows, tall=True)


def _place(result: QueryResult | None) -> list[page.Cell]:
    """Latitude, longitude, altitude, and the distance from the GNSS position."""
    if result is None or result.wgs84 is None:
        return [None] * len(PLACE_TITLES)
    latitude, longitude, altitude = result.wgs84
    return [
        f"{latitude:.7f}",
        f"{longitude:.7f}",
        f"{altitude:.2f}",
        result.gnss_distance,
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
