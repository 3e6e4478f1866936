"""Pictures of a map: coloured points and cameras, in top and side view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from r2d2_kapture.evaluation.map_view import (
    FRUSTUM_EDGES,
    camera_centers,
    camera_frustums,
    robust_bounds,
    up_axis,
    view_axes,
)
from r2d2_kapture.io.ply import write_ply
from r2d2_kapture.pictures.figures import new_figure, plain_axes, save

Array = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]

WIDTH_INCHES, TALLEST_INCHES, LEAST_INCHES = 11.0, 9.0, 2.0
"""Picture: width, greatest height of both views, least height of one."""
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.85, 0.2, 0.65, 0.4
"""Inches around each view for axis labels and title."""
MARGIN = 0.04
MOST_POINTS = 400_000
MOST_FRUSTUMS = 20_000
"""Points and frustums drawn at most; more are sampled."""
FRUSTUM_LENGTH = 0.04
"""Share of the extent of a picture at most."""
SPACING = 0.8
"""Length of a frustum at most, in typical distances between neighbouring cameras."""
CAMERA_COLOR = "#d62728"
CAMERA_RGB = (214, 39, 40)
NO_COLOR = 110
"""Grey level of points without a colour, which COLMAP leaves black."""
PLY_STEPS = 12
"""Points along each edge of a frustum; many programs do not show edges."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapCloud:
    """The points and cameras of a map to draw.

    Attributes:
        points: (P, 3) float64 in the units of the world, finite.
        colors: (P, 3) uint8 RGB.
        cam_from_world: (N, 3, 4) float64, N >= 1.
    """

    points: Array
    colors: ByteArray
    cam_from_world: Array

    @staticmethod
    def of_model(model: pycolmap.Reconstruction) -> MapCloud:
        """The points of a COLMAP model and its images with a pose."""
        found = [model.point3D(number) for number in sorted(model.points3D)]
        points = np.array([point.xyz for point in found]).reshape(-1, 3)
        colors = np.array([point.color for point in found], np.uint8).reshape(-1, 3)
        images = [model.image(number) for number in sorted(model.reg_image_ids())]
        poses = [image.cam_from_world().matrix() for image in images]
        finite = np.isfinite(points).all(axis=1)
        colors[~colors.any(axis=1)] = NO_COLOR
        return MapCloud(
            points=points[finite],
            colors=colors[finite],
            cam_from_world=np.array(poses).reshape(-1, 3, 4),
        )

    def estimated_axes(self) -> Array:
        """Directions right, back, up as far as the cameras show them, see view_axes."""
        forward = self.cam_from_world[:, 2, :3].mean(axis=0)
        centers = camera_centers(self.cam_from_world)
        return view_axes(up_axis(self.cam_from_world), centers, forward)


def draw_map(
    cloud: MapCloud, path: Path, *, unit: str, axes: Array | None = None
) -> None:
    """Draw a map in top and side view, on one scale.

    A few distant points are cut off.

    Args:
        cloud: with at least one camera.
        path: of the picture; its suffix (.png, .pdf) selects the format.
        unit: of the axes, such as "m".
        axes: (3, 3) directions in the map, rows east, north, up; None estimates up by
            up_axis and turns the longest direction to the right.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    known = "up is estimated from them" if axes is None else "north and up by GNSS"
    centers = camera_centers(cloud.cam_from_world)
    axes = cloud.estimated_axes() if axes is None else axes
    origin = np.median(centers, axis=0)
    points = (cloud.points - origin) @ axes.T
    low, high = _limits(points, (centers - origin) @ axes.T)
    span = high - low
    length = frustum_length(centers, float(np.linalg.norm(span)))
    frustums = (camera_frustums(cloud.cam_from_world, length) - origin) @ axes.T
    chosen = _sample(points, low, high)
    figure, panels = _panels(span)
    views = {"top view": (1, 2), "side view": (2, 1)}
    for panel, (title, (vertical, depth)) in zip(panels, views.items()):
        # points nearer to the viewer are drawn last
        nearer = points[chosen, depth] * (1 if depth == 2 else -1)
        order = chosen[np.argsort(nearer, kind="stable")]
        show_points(panel, points[order][:, [0, vertical]], cloud.colors[order])
        show_frustums(panel, frustums[:, :, [0, vertical]])
        # auto: may be widened to the shape of the panel
        panel.set_xlim(low[0], high[0], auto=True)
        panel.set_ylim(low[vertical], high[vertical], auto=True)
        panel.set_aspect("equal", adjustable="datalim")
        panel.set_title(title, fontsize=11, loc="left")
        panel.set_xlabel(unit)
        panel.set_ylabel(unit if vertical == 1 else f"up, {unit}")
        plain_axes(panel)
    panels[0].set_title(
        f"{len(cloud.points)} points, {len(centers)} images", fontsize=11, loc="right"
    )
    panels[1].set_title(f"red: cameras; {known}", fontsize=9, loc="right")
    save(figure, path)


def _panels(span: Array) -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure with two views of a box of (3,) lengths, in a column or side by side."""
    over = min(WIDTH_INCHES / span[0], TALLEST_INCHES / (span[1] + span[2]))
    beside = min(WIDTH_INCHES / 2 / span[0], TALLEST_INCHES / max(span[1:]))
    width, *heights = np.maximum(max(over, beside) * span, LEAST_INCHES)
    if over >= beside:
        size = (_LEFT + width + _RIGHT, sum(heights) + 2 * (_BELOW + _ABOVE))
        corners = [(_LEFT, _BELOW + heights[1] + _ABOVE + _BELOW), (_LEFT, _BELOW)]
    else:
        size = (2 * (_LEFT + width + _RIGHT), max(heights) + _BELOW + _ABOVE)
        tops = [size[1] - _ABOVE - height for height in heights]
        corners = [(_LEFT, tops[0]), (2 * _LEFT + width + _RIGHT, tops[1])]
    figure = new_figure(*size)
    # one scale in both, which no layout engine keeps
    figure.set_layout_engine("none")
    top, side = (
        figure.add_axes((x / size[0], y / size[1], width / size[0], height / size[1]))
        for (x, y), height in zip(corners, heights)
    )
    return figure, (top, side)


def write_map_ply(cloud: MapCloud, path: Path) -> None:
    """Write the points of a map in colour, and the cameras as red pyramids of points.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    centers = camera_centers(cloud.cam_from_world)
    low, high = _limits(cloud.points, centers)
    length = frustum_length(centers, float(np.linalg.norm(high - low)))
    frustums = _some(camera_frustums(cloud.cam_from_world, length))
    starts, ends = (frustums[:, list(side), None] for side in zip(*FRUSTUM_EDGES))
    steps = np.linspace(0, 1, PLY_STEPS, endpoint=False)[:, None]
    cameras = (starts + steps * (ends - starts)).reshape(-1, 3)
    red = np.tile(np.array(CAMERA_RGB, np.uint8), (len(cameras), 1))
    write_ply(
        path,
        np.concatenate([cloud.points, cameras]),
        np.concatenate([cloud.colors, red]),
    )


def frustum_length(centers: Array, extent: float) -> float:
    """Length at which camera frustums stay distinguishable in a picture."""
    longest = FRUSTUM_LENGTH * extent
    if len(centers) < 2:
        return longest
    some = centers[:: max(1, len(centers) // 500)]
    distances = np.linalg.norm(some[:, None] - some[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    typical = SPACING * float(np.median(distances.min(axis=1)))
    return float(np.clip(typical, longest / 4, longest))


def show_points(axes: Axes, points: Array, colors: ByteArray) -> None:
    """Draw (P, 2) points in (P, 3) colours, small where there are many."""
    size = float(np.clip(3e4 / max(len(points), 1), 0.4, 8))
    x, y = points.T
    axes.scatter(x, y, s=size, c=colors / 255, linewidths=0, zorder=1, rasterized=True)


def show_frustums(axes: Axes, frustums: Array, color: str = CAMERA_COLOR) -> None:
    """Draw (N, 5, 2) projected frustums, thin where there are many."""
    frustums = _some(frustums)
    edges = frustums[:, np.array(FRUSTUM_EDGES)].reshape(-1, 2, 2)
    width = 0.9 if len(frustums) <= 100 else 0.4
    axes.add_collection(
        LineCollection(list(edges), colors=color, linewidths=width, zorder=2)
    )
    size = 3.0 if len(frustums) <= 100 else 1.0
    axes.plot(*frustums[:, 0].T, "o", color=color, markersize=size, zorder=2)


def _some(frustums: Array) -> Array:
    """Frustums, evenly thinned out where there are too many to be told apart."""
    return frustums[:: math.ceil(len(frustums) / MOST_FRUSTUMS) or 1]


def _limits(points: Array, centers: Array) -> tuple[Array, Array]:
    """The box to draw: most points and most cameras, and a margin."""
    boxes = [robust_bounds(places) for places in (points, centers) if len(places)]
    low = np.min([box[0] for box in boxes], axis=0)
    high = np.max([box[1] for box in boxes], axis=0)
    margin = MARGIN * (float(np.linalg.norm(high - low)) or 1.0)
    return low - margin, high + margin


def _sample(points: Array, low: Array, high: Array) -> npt.NDArray[np.int64]:
    """Rows of the points in a box, evenly thinned out where there are too many."""
    inside = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    return inside[:: math.ceil(len(inside) / MOST_POINTS) or 1]
