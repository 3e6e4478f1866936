"""Pictures of pose errors: cumulative curves, and a plan of true and estimated
cameras."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from r2d2_kapture.evaluation.map_view import (
    camera_centers,
    camera_frustums,
    robust_bounds,
    up_axis,
    view_axes,
)
from r2d2_kapture.pictures.figures import new_figure, plain_axes, save
from r2d2_kapture.pictures.maps import frustum_length, show_frustums

Array = npt.NDArray[np.float64]

WIDTH_INCHES = 11.0
CURVES_HEIGHT_INCHES = 4.6
LEAST_SPAN, MOST_SPAN = 1e2, 1e6
"""Ratio of the largest to the smallest error that curves show."""
TALLEST_PLAN = 0.75
"""Greatest height of a plan, in units of its width."""
TITLE_INCHES, LEGEND_INCHES = 0.4, 0.8
MOST_COLUMNS = 3
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Distinguishable for colour-blind readers (Okabe and Ito 2008)."""
INK, GREY, PALE = "#222222", "#8a8a8a", "#dcdcdc"
MAP_POINTS, MAP_CAMERAS = "#b5b5b5", "#b99b5f"
AROUND = 0.7
"""Margin around the cameras in which the map is shown, as a share of their extent."""
STYLES = ("-", "--", "-.", ":")
WEDGE_LENGTH = 0.05
MARGIN = 0.12
"""Shares of the extent of the cameras."""
MOST_WEDGES = 150
"""More cameras than this are drawn as dots."""
LONGEST_ERROR = 0.06
"""Share of the extent that most errors are magnified to, where they are smaller."""


def draw_cumulative_errors(
    errors: Mapping[str, tuple[Array, Array]],
    path: Path,
    *,
    thresholds: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw the share of images within each error, on a logarithmic scale.

    Args:
        errors: by name of the estimate: (N,) position errors in metres and (N,)
            rotation errors in degrees of all images; infinite without a pose, so that a
            curve ends at the share of localized images.
        path: of the picture; its suffix (.png, .pdf) is the format.
        thresholds: metres and degrees to mark.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure = new_figure(WIDTH_INCHES, CURVES_HEIGHT_INCHES)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, column, label in (
        (left, 0, "position error (m)"),
        (right, 1, "rotation error (degrees)"),
    ):
        curves = {name: pair[column] for name, pair in errors.items()}
        marks = sorted({pair[column] for pair in thresholds})
        _draw_curves(axes, curves, marks)
        axes.set_xlabel(label)
    left.set_ylabel("images within the error (%)")
    legend = figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=min(len(errors), MOST_COLUMNS),
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    save(figure, path)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Array], marks: Sequence[float]
) -> None:
    finite = np.concatenate([*curves.values(), np.array(marks)])
    finite = finite[np.isfinite(finite) & (finite > 0)]
    high = finite.max(initial=1e-3) * 1.5
    low = np.clip(finite.min(initial=high) / 1.5, high / MOST_SPAN, high / LEAST_SPAN)
    for number, (name, values) in enumerate(curves.items()):
        found = np.sort(values[np.isfinite(values)]).clip(min=low)
        share = 100 * np.arange(1, len(found) + 1) / max(len(values), 1)
        axes.step(
            np.concatenate([[low], found, [high]]),
            np.concatenate([[0.0], share, share[-1:] if len(share) else [0.0]]),
            where="post",
            color=COLORS[number % len(COLORS)],
            linestyle=STYLES[number // len(COLORS) % len(STYLES)],
            # ever thinner, so that coinciding curves stay visible
            linewidth=max(1.5, 3.5 - number),
            label=f"{name}: {len(found)} of {len(values)} localized",
            clip_on=False,
            zorder=3,
        )
    for mark in marks:
        axes.axvline(mark, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(
            f"{mark:g}",
            (mark, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=GREY,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)
    axes.set_ylim(0, 100)
    axes.grid(color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    plain_axes(axes)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanMap:
    """The map drawn behind a plan.

    Attributes:
        points: (P, 3) float64 in the world of the true poses.
        cam_from_world: (N, 3, 4) float64 of the mapping images.
    """

    points: Array
    cam_from_world: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class _TopView:
    """Right and back in the world, (2, 3), and the point at (0, 0), (3,)."""

    axes: Array
    origin: Array

    def project(self, points: Array) -> Array:
        """(..., 3) points of the world to (..., 2) coordinates of the plan."""
        projected: Array = (points - self.origin) @ self.axes.T
        return projected


def _top_view(true: Collection[pycolmap.Rigid3d], mapped: PlanMap | None) -> _TopView:
    """The view from above the true cameras, with their longest direction horizontal."""
    centers = _centers(true)
    poses = np.array([pose.matrix() for pose in true])
    if mapped is not None:
        poses = np.concatenate([poses, mapped.cam_from_world])
    axes = view_axes(up_axis(poses), centers)[:2]
    return _TopView(axes=axes, origin=centers.mean(axis=0))


def draw_plan(
    true: Mapping[str, pycolmap.Rigid3d],
    estimated: Mapping[str, Mapping[str, pycolmap.Rigid3d]],
    path: Path,
    *,
    mapped: PlanMap | None = None,
) -> None:
    """Draw true and estimated cameras from above, with a line for each error.

    Errors too small to see are magnified by a factor that the picture states; cameras
    and points far from the true cameras are cut off.

    Args:
        true: cam_from_world in metres by image name, at least one.
        estimated: by name of the estimate, the poses by image name.
        path: of the picture; its suffix (.png, .pdf) is the format.
        mapped: the map that the images are localized in, drawn behind them.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    view = _top_view(true.values(), mapped)
    low, high = _plan_limits(view, true.values(), mapped)
    errors = _position_errors(true, estimated.values())
    extent = max(
        float(np.linalg.norm(high - low)),
        10 * float(np.median(errors)) if len(errors) else 0.0,
    )
    extent = extent or 1.0
    factor = magnification(errors, extent)
    low, high = low - MARGIN * extent, high + MARGIN * extent
    aspect = float((high - low)[1] / (high - low)[0])
    columns = _columns(len(estimated), aspect)
    rows = math.ceil(len(estimated) / columns)
    height = WIDTH_INCHES / columns * min(aspect, TALLEST_PLAN) + TITLE_INCHES
    figure = new_figure(WIDTH_INCHES, rows * height + LEGEND_INCHES)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(estimated) :]:
        axes.remove()
    for axes in panels.flat[max(len(estimated) - columns, 0) : len(estimated)]:
        axes.tick_params(labelbottom=True)  # there may be no panel below it
    colors = [COLORS[number % len(COLORS)] for number in range(len(estimated))]
    for axes, color, (name, poses) in zip(panels.flat, colors, estimated.items()):
        if mapped is not None:
            _draw_map(axes, view, mapped, extent)
        _draw_cameras(axes, view, true, poses, extent, factor, color)
        axes.set_aspect("equal")
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(low[1], high[1])
        count = f"{len(poses.keys() & true.keys())} of {len(true)} localized"
        axes.set_title(f"{name}: {count}", fontsize=11, parse_math=False)
        plain_axes(axes)
    figure.supxlabel("top view, m; up is estimated from the cameras", fontsize=10)
    figure.supylabel("m", fontsize=10)
    _add_plan_legend(figure, factor, colors, mapped is not None)
    save(figure, path)


def _plan_limits(
    view: _TopView, true: Collection[pycolmap.Rigid3d], mapped: PlanMap | None
) -> tuple[Array, Array]:
    """The region of all true cameras and most mapping cameras, with a margin."""
    places = view.project(_centers(true))
    if mapped is None:
        return places.min(axis=0), places.max(axis=0)
    mapping = view.project(camera_centers(mapped.cam_from_world))
    places = np.concatenate([places, np.stack(robust_bounds(mapping))])
    low, high = places.min(axis=0), places.max(axis=0)
    around = AROUND * float(np.linalg.norm(high - low))
    least, most = robust_bounds(view.project(mapped.points))
    return (
        np.minimum(low, np.maximum(least, low - around)),
        np.maximum(high, np.minimum(most, high + around)),
    )


def _draw_map(axes: Axes, view: _TopView, mapped: PlanMap, extent: float) -> None:
    """Points and cameras of the map, faint."""
    x, y = view.project(mapped.points).T
    size = float(np.clip(2e4 / len(x), 0.3, 4))
    axes.scatter(x, y, s=size, c=MAP_POINTS, linewidths=0, zorder=0)
    length = frustum_length(camera_centers(mapped.cam_from_world), extent)
    frustums = view.project(camera_frustums(mapped.cam_from_world, length))
    show_frustums(axes, frustums, MAP_CAMERAS)


def _columns(count: int, aspect: float) -> int:
    """The fewest columns of panels that keep the picture from becoming tall."""
    for columns in range(1, min(count, MOST_COLUMNS)):
        if math.ceil(count / columns) * aspect / columns <= TALLEST_PLAN:
            return columns
    return min(count, MOST_COLUMNS)


def _position_errors(
    true: Mapping[str, pycolmap.Rigid3d],
    estimates: Collection[Mapping[str, pycolmap.Rigid3d]],
) -> Array:
    """Distances between true and estimated centres of all estimates."""
    pairs = [
        (true[name], pose)
        for poses in estimates
        for name, pose in poses.items()
        if name in true
    ]
    if not pairs:
        return np.zeros(0)
    truth, found = zip(*pairs)
    distances: Array = np.linalg.norm(_centers(found) - _centers(truth), axis=1)
    return distances


def magnification(errors: Array, extent: float) -> float:
    """The round factor, 1 or more, by which errors are magnified in a plan.

    It brings the 90th percentile of (N,) position errors to at most LONGEST_ERROR of
    the extent. Without errors it is 1.
    """
    typical = float(np.percentile(errors, 90)) if len(errors) else 0.0
    if typical < 1e-9 * extent:
        return 1.0
    wanted = LONGEST_ERROR * extent / typical
    power = 10.0 ** math.floor(math.log10(wanted))
    steps = [step * power for step in (1, 2, 5) if step * power <= wanted]
    return max(1.0, *steps)


def _draw_cameras(
    axes: Axes,
    view: _TopView,
    true: Mapping[str, pycolmap.Rigid3d],
    estimated: Mapping[str, pycolmap.Rigid3d],
    extent: float,
    factor: float,
    color: str,
) -> None:
    found = [name for name in true if name in estimated]
    missing = [name for name in true if name not in estimated]
    as_wedges = len(true) <= MOST_WEDGES
    length = WEDGE_LENGTH * extent if as_wedges else 0.0
    size = 4.0 if as_wedges else 2.0
    truth = _wedges(list(true.values()), length)
    axes.add_collection(
        PolyCollection(
            list(view.project(truth)), facecolors=PALE, edgecolors=GREY, linewidths=0.8
        )
    )
    for names, marker in ((found, "o"), (missing, "x")):
        places = view.project(_centers([true[name] for name in names]))
        axes.plot(*places.T, marker, color=INK, markersize=size, zorder=4)
    poses = [estimated[name] for name in found]
    starts = _centers([true[name] for name in found])
    grown = (factor - 1) * (_centers(poses) - starts)
    ends = _centers(poses) + grown
    segments = view.project(np.stack([starts, ends], axis=1))
    axes.add_collection(
        LineCollection(list(segments), colors=color, linewidths=size / 3, zorder=3)
    )
    wedges = _wedges(poses, length) + grown[:, None]
    axes.add_collection(
        PolyCollection(
            list(view.project(wedges)),
            facecolors="none",
            edgecolors=color,
            linewidths=1.2,
        )
    )
    axes.plot(*view.project(ends).T, "o", color=color, markersize=size, zorder=4)


def _add_plan_legend(
    figure: Figure, factor: float, colors: Sequence[str], with_map: bool
) -> None:
    times = "" if factor == 1 else f", magnified {factor:g} times"
    line = [Line2D([], [], color=color) for color in colors]
    # matplotlib's types do not know entries that are tuples of handles
    entries: dict[str, Any] = {
        "true camera": (_dot(INK, "o"),),
        "missing": (_dot(INK, "x"),),
        "estimate": tuple(_dot(color, "o") for color in colors),
        f"position error{times}": tuple(line),
    }
    if with_map:
        entries["mapping camera"] = (_dot(MAP_CAMERAS, "o"),)
        entries["map point"] = (_dot(MAP_POINTS, "."),)
    figure.legend(
        list(entries.values()),
        list(entries),
        handler_map={tuple: HandlerTuple(ndivide=None)},
        loc="outside upper center",
        ncols=len(entries),
        frameon=False,
    )


def _dot(color: str, marker: str) -> Line2D:
    return Line2D([], [], color=color, marker=marker, markersize=4, linestyle="none")


def _centers(cam_from_world: Collection[pycolmap.Rigid3d]) -> Array:
    """(N, 3) camera centres in the world."""
    centers = [pose.tgt_origin_in_src() for pose in cam_from_world]
    return np.array(centers).reshape(-1, 3)


def _image_axes(cam_from_world: Collection[pycolmap.Rigid3d], axis: int) -> Array:
    """(N, 3) directions in the world of an axis of the cameras: x right, y down."""
    axes = [pose.rotation.matrix()[axis] for pose in cam_from_world]
    return np.array(axes).reshape(-1, 3)


def _wedges(cam_from_world: Collection[pycolmap.Rigid3d], length: float) -> Array:
    """(N, 3, 3) triangles from each centre along the viewing direction."""
    centers = _centers(cam_from_world)
    forward = length * _image_axes(cam_from_world, 2)
    aside = 0.5 * length * _image_axes(cam_from_world, 0)
    return np.stack(
        [centers, centers + forward - aside, centers + forward + aside], axis=1
    )
