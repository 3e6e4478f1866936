"""The section of pairs: a matrix of matches and inliers, or of shared points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from r2d2_kapture.evaluation.map_statistics import MapStatistics
from r2d2_kapture.io.colmap.pair_counts import PairCounts
from r2d2_kapture.stages.report import page
from r2d2_kapture.stages.report.charts import heat_maps
from r2d2_kapture.types import IndexArray

Array = npt.NDArray[np.float64]

MOST_ROWS = 250
"""Greatest number of rows of a matrix; more images share rows."""
HEIGHT, WIDTH = 620, 720
"""Height in pixels of the chart of a square matrix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """Images in order, grouped into rows of a matrix.

    Attributes:
        labels: of the rows: a name, or the first and last of several.
        row_of: (N,) row of each image.
    """

    labels: tuple[str, ...]
    row_of: IndexArray


def matrix_axis(names: Sequence[str], most: int = MOST_ROWS) -> Axis:
    """Group images into rows, equally many in each but the last.

    Args:
        names: in order, all different.
        most: greatest number of rows.
    """
    share = max(1, -(-len(names) // most))
    groups = [names[i : i + share] for i in range(0, len(names), share)]
    return Axis(
        labels=tuple(
            (
                group[0]
                if len(group) == 1
                else f"{len(group)} images: {group[0]} to " f"{group[-1]}"
            )
            for group in groups
        ),
        row_of=np.arange(len(names)) // share,
    )


def mean_matrix(rows: Axis, columns: Axis, pairs: IndexArray, values: Array) -> Array:
    """Mean of the values of the pairs in each cell; NaN for cells without a pair.

    Args:
        rows, columns: of the matrix.
        pairs: (K, 2) image of the rows, image of the columns.
        values: (K,).
    """
    shape = len(rows.labels), len(columns.labels)
    sums, counts = np.zeros(shape), np.zeros(shape)
    cells = rows.row_of[pairs[:, 0]], columns.row_of[pairs[:, 1]]
    np.add.at(sums, cells, values)
    np.add.at(counts, cells, 1)
    with np.errstate(invalid="ignore"):
        means: Array = sums / counts
    return means


def matches_section(counts: PairCounts) -> page.Section:
    """The matrix of the pairs of a database."""
    axis = matrix_axis(counts.names)
    both = np.concatenate([counts.pairs, counts.pairs[:, ::-1]])
    shared = axis.row_of.max(initial=0) + 1 < len(counts.names)
    mean = "mean " if shared else ""
    layers = {
        title: mean_matrix(axis, axis, both, np.tile(values, 2).astype(np.float64))
        for title, values in (
            ("verified inliers", counts.inliers),
            ("matches", counts.matches),
        )
    }
    found, verified = counts.matches > 0, counts.inliers > 0
    unpaired = len(counts.names) - len(np.unique(counts.pairs[verified]))
    figures = {
        "images": f"{len(counts.names):,}",
        "pairs tried": f"{len(counts.pairs):,}",
        "with matches": f"{found.sum():,}",
        "verified": f"{verified.sum():,}",
        "images without a verified pair": f"{unpaired:,}",
    }
    if verified.any():
        median = np.median(counts.inliers[verified])
        figures["median inliers of a verified pair"] = f"{median:,.0f}"
    html = page.join(
        [
            page.numbers(figures),
            page.paragraph(
                "Each cell is a pair of images, in the order of their names from the "
                "top left; blank cells are pairs that were not tried. " + _shared(axis),
                "note",
            ),
            page.chart(
                heat_maps(layers, axis.labels, axis.labels, unit=mean),
                "Matrix of matches and verified inliers of the pairs of images",
                HEIGHT,
                WIDTH,
            ),
        ]
    )
    return page.Section("matches", "Matches between images", html)


def covisibility_section(statistics: MapStatistics) -> page.Section:
    """The matrix of a map without available matches."""
    names = [image.name for image in statistics.images]
    axis = matrix_axis(names)
    counts = statistics.covisible.tocoo()
    apart = counts.row != counts.col
    pairs = np.stack([counts.row, counts.col], axis=1)[apart].astype(np.int64)
    values = counts.data[apart].astype(np.float64)
    matrix = mean_matrix(axis, axis, pairs, values)
    html = page.join(
        [
            page.paragraph(
                "Each cell is a pair of images, in the order of their names from the "
                "top left: the number of map points that both observe. "
                + _shared(axis),
                "note",
            ),
            page.chart(
                heat_maps({"shared points": matrix}, axis.labels, axis.labels),
                "Matrix of the points that pairs of images share",
                HEIGHT,
                WIDTH,
            ),
        ]
    )
    return page.Section("matches", "Points shared by images", html)


def query_matrix(name: str, counts: Mapping[tuple[str, str], int]) -> Markup:
    """The matrix of the queries of a dataset and their paired map images.

    Args:
        name: of the dataset.
        counts: matches by query and map image, at least one pair.
    """
    queries, images = (sorted({pair[end] for pair in counts}) for end in (0, 1))
    rows, columns = matrix_axis(queries), matrix_axis(images)
    places = [dict(zip(names, range(len(names)))) for names in (queries, images)]
    pairs = np.array([[places[0][q], places[1][i]] for q, i in counts], np.int64)
    values = np.array(list(counts.values()), np.float64)
    matrix = mean_matrix(rows, columns, pairs, values)
    return page.join(
        [
            page.heading(f"Queries {name} (rows) and map images (columns)"),
            page.paragraph(
                f"{len(counts):,} pairs, {(values > 0).sum():,} of them with matches; "
                "blank cells are pairs that were not tried.",
                "note",
            ),
            page.chart(
                heat_maps({"matches": matrix}, rows.labels, columns.labels),
                "Matrix of the matches between queries (rows) and map images (columns)",
                min(HEIGHT, 120 + 24 * len(rows.labels)),
            ),
        ]
    )


def _shared(axis: Axis) -> str:
    if len(axis.labels) == len(axis.row_of):
        return "Hover over a cell to see the names."
    share = int((axis.row_of == 0).sum())
    return (
        f"Each row stands for {share} images, and a cell for the mean over their "
        "pairs. Hover over a cell to see the first and last names."
    )
