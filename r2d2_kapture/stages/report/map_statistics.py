"""The section of the map: points, tracks, errors, weak images, cameras."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from r2d2_kapture.evaluation.map_statistics import (
    CameraStatistics,
    ImageStatistics,
    MapStatistics,
)
from r2d2_kapture.io.georeference import Georeference
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.charts import bars, histogram
from r2d2_kapture.stages.report.images import thumbnail

WEAKEST = 5
"""Number of images shown with the fewest observations, and with the largest errors."""
MOST_BARS = 2000
MOST_ROWS = 500
"""Greatest number of images in the table."""
MOST_CAMERAS = 100


def map_section(
    statistics: MapStatistics,
    images: Mapping[str, Path],
    *,
    given: int | None = None,
    georeference: Georeference | None = None,
) -> page.Section:
    """The section of a map.

    Args:
        statistics: of the map.
        images: the file of each image by name; files may be missing.
        given: number of input images of the map; None if unknown.
        georeference: where the map lies on Earth; None if unknown.
    """
    figures = _figures(statistics, given) | _place(georeference)
    blocks = [page.numbers(figures), *_charts(statistics)]
    blocks += _weakest(statistics.images, images)
    blocks += [*_images(statistics.images), *_cameras(statistics.cameras)]
    return page.Section("map", "Map", page.join(blocks))


def _figures(statistics: MapStatistics, given: int | None) -> dict[str, str]:
    count = len(statistics.images)
    registered = f"{count:,}" if given is None else f"{count:,} of {given:,}"
    figures = {
        "registered images": registered,
        "cameras": f"{len(statistics.cameras):,}",
        "points": f"{len(statistics.track_lengths):,}",
        "observations": f"{statistics.track_lengths.sum():,}",
    }
    if len(statistics.track_lengths):
        mean = statistics.track_lengths.mean()
        figures["mean track length"] = f"{mean:.2f}"
    if statistics.mean_error is not None:
        figures["mean reprojection error"] = f"{statistics.mean_error:.2f} px"
    return figures


def _place(georeference: Georeference | None) -> dict[str, str]:
    """Where the frame in metres begins, and how well positions of images fit."""
    if georeference is None:
        return {}
    frame = georeference.frame
    figures = {
        "images with a position": f"{georeference.images:,}",
        "median distance from these": f"{georeference.residual_median:.3g} m",
        "95 % of them below": f"{georeference.residual_95:.3g} m",
    }
    if frame is not None:
        figures["origin (WGS84)"] = str(frame)
    return figures


def _charts(statistics: MapStatistics) -> Iterator[Markup]:
    charts = []
    if len(statistics.track_lengths):
        figure = histogram(
            statistics.track_lengths,
            x_title="track length (keypoints that observe the point)",
            y_title="points",
        )
        charts.append(page.chart(figure, "Histogram of the track lengths"))
    if len(statistics.errors):
        figure = histogram(
            statistics.errors,
            x_title="reprojection error (px)",
            y_title="observations",
        )
        charts.append(page.chart(figure, "Histogram of the reprojection errors"))
    if charts:
        yield page.side_by_side(charts)
    if statistics.images:
        weak_first = sorted(statistics.images, key=lambda one: one.observations)
        shown = {one.name: one.observations for one in weak_first[:MOST_BARS]}
        cut = len(shown) < len(weak_first)
        yield page.heading("Images by observations")
        yield page.chart(
            bars(
                shown,
                x_title="images, the weakest first"
                + (f" ({len(shown):,} of {len(weak_first):,})" if cut else ""),
                y_title="observations",
            ),
            "Bars of the observations of each image, fewest first",
            260,
        )


def _weakest(
    found: Sequence[ImageStatistics], images: Mapping[str, Path]
) -> Iterator[Markup]:
    """Thumbnails of the weakest images; of a small map, the weaker half."""
    most = min(WEAKEST, -(-len(found) // 2))
    fewest = sorted(found, key=lambda one: one.observations)[:most]
    with_error = [one for one in found if one.mean_error is not None]
    worst = sorted(with_error, key=lambda one: -(one.mean_error or 0.0))[:most]
    for title, chosen in (
        ("Images with the fewest observations", fewest),
        ("Images with the largest reprojection errors", worst),
    ):
        if chosen:
            yield page.heading(title)
            yield _shown(chosen, images)


def _shown(chosen: Sequence[ImageStatistics], images: Mapping[str, Path]) -> Markup:
    """Thumbnails, or a table if no photograph is available."""
    thumbnails = [thumbnail(images.get(one.name)) for one in chosen]
    if not any(thumbnails):
        return _table(chosen)
    return page.pictures(
        page.Picture(
            jpeg=data,
            caption=one.name,
            note=f"{one.observations:,} observations, {_error(one)}",
        )
        for one, data in zip(chosen, thumbnails)
    )


def _error(one: ImageStatistics) -> str:
    if one.mean_error is None:
        return "not available"
    return f"mean error {one.mean_error:.2f} px"


def _table(images: Iterable[ImageStatistics], tall: bool = False) -> Markup:
    rows = [
        (one.name, one.keypoints, one.observations, one.mean_error) for one in images
    ]
    titles = ("image", "keypoints", "observations", "mean error (px)")
    return page.table(titles, rows, digits=2, tall=tall)


def _images(found: Sequence[ImageStatistics]) -> Iterator[Markup]:
    weak_first = sorted(found, key=lambda one: one.observations)[:MOST_ROWS]
    if weak_first:
        cut = f", the {MOST_ROWS} weakest" if len(weak_first) < len(found) else ""
        yield page.folded(f"Table of the images{cut}", _table(weak_first, tall=True))


def _cameras(cameras: Sequence[CameraStatistics]) -> Iterator[Markup]:
    if not cameras:
        return
    yield page.heading("Cameras")
    if len(cameras) > MOST_CAMERAS:
        yield page.paragraph(f"{MOST_CAMERAS} of {len(cameras):,} are listed.", "note")
    rows = [
        (
            str(camera.camera_id),
            camera.model,
            "{} x {}".format(*camera.size),
            _intrinsics(camera),
            camera.images,
        )
        for camera in cameras[:MOST_CAMERAS]
    ]
    titles = ("camera", "model", "size (px)", "intrinsics (px; distortion)", "images")
    yield page.table(titles, rows)


def _intrinsics(camera: CameraStatistics) -> str:
    """Names and values of the camera parameters, in COLMAP's order."""
    names = [name.strip() for name in camera.params_info.split(",")]
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, camera.params))
