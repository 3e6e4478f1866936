"""The section that shows a map in 3D: points, cameras, queries; drawn by three.js.

three.js comes from the package jupyter-threejs-sage, which holds its minified build
with OrbitControls and wide lines. ``view.js`` puts the scene together,
``view_panel.js`` shows the image of a camera that is clicked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.errors import OutputError
from r2d2_kapture.evaluation.map_statistics import MapStatistics
from r2d2_kapture.evaluation.map_view import (
    camera_centers,
    camera_frustums,
    robust_bounds,
    up_axis,
    view_axes,
)
from r2d2_kapture.evaluation.poses import conditions_by_folder, pose_errors
from r2d2_kapture.pictures.maps import MapCloud, frustum_length
from r2d2_kapture.stages.localize import read_reason
from r2d2_kapture.stages.report.images import thumbnail
from r2d2_kapture.stages.report.page import (
    Section,
    data_address,
    encoded,
    fragment,
    read_template,
)
from r2d2_kapture.stages.report.subject import QuerySet, Subject
from r2d2_kapture.types import IndexArray

Array = npt.NDArray[np.float64]

THREE_PACKAGE, THREE_BUILD = "jupyter_threejs_sage", "static/r130/three.min.js"
SCRIPTS = ("view_panel.js", "view.js")

MOST_POINTS = 200_000
"""Drawn; what three.js turns smoothly on a laptop."""
MOST_CAMERAS = 4000
"""Drawn of the mapping images, and of the queries of each dataset."""
MOST_KEYPOINTS = 150_000
"""Kept of all images together, those of the longest tracks first."""
MOST_KEYPOINTS_OF_IMAGE = 1500
MOST_CONDITIONS = 20
"""Of a query dataset; where folders are more, they are none."""
MOST_NEIGHBOURS = 6
"""Covisible images listed of each image."""
SIDES = (640, 480, 320, 240, 160)
"""Pixels of the longest side of thumbnails, the largest that there is room for."""
MOST_THUMBNAIL_BYTES = 6_000_000
BYTES_OF_THE_REST = 100_000
BYTES_A_PIXEL = 0.3
"""Of a JPEG in base64, roughly; detailed photographs have more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewCamera:
    """A camera that can be clicked.

    Attributes:
        name: of its image.
        group: that it is shown and hidden with.
        size: (W, H) of its image in pixels.
        facts: what the panel says of it, label and value.
        pose: (3, 4) cam_from_world in the map; None where a query has none.
        truth: (3, 4) true cam_from_world of a query, if it is known.
    """

    name: str
    group: str
    size: tuple[int, int]
    facts: tuple[tuple[str, str], ...]
    pose: Array | None
    truth: Array | None = None


def view_scripts() -> list[str]:
    """What the section needs: three.js, then our own.

    Raises:
        OutputError: the package of three.js is not installed.
    """
    try:
        three = resources.files(THREE_PACKAGE).joinpath(THREE_BUILD)
        return [three.read_text(encoding="utf-8"), *map(read_template, SCRIPTS)]
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise OutputError(
            "the 3D view needs three.js of the package jupyter-threejs-sage, which is "
            "not installed; pip install jupyter-threejs-sage"
        ) from error


def view_section(subject: Subject, room: int) -> Section:
    """The section of the 3D view.

    Args:
        subject: with a map of one image at least.
        room: bytes of the page that the section may take; thumbnails take what the rest
            leaves.
    """
    statistics = subject.statistics
    cloud = MapCloud.of_model(subject.model)
    mapping = list(_mapping_cameras(subject.model, statistics))
    queries = [c for query in subject.queries for c in _query_cameras(query, subject)]
    cameras = mapping + queries
    rows = _sampled(len(cloud.points), MOST_POINTS)
    origin = np.median(camera_centers(cloud.cam_from_world), axis=0)
    keypoints, kept = _keypoints(subject.model, [camera.name for camera in mapping])
    data = {
        "points": {
            "positions": encoded((cloud.points[rows] - origin).astype(np.float32)),
            "colors": encoded(cloud.colors[rows]),
        },
        "cameras": {
            "names": [camera.name for camera in cameras],
            "groups": [camera.group for camera in cameras],
            "sizes": [camera.size for camera in cameras],
            "facts": [camera.facts for camera in cameras],
            "poses": _frustums([camera.pose for camera in cameras], origin),
            "truth": _frustums([camera.truth for camera in cameras], origin),
        },
        "keypoints": keypoints,
        "neighbours": _neighbours(statistics, mapping),
        "frame": _frame(cloud, origin),
    }
    groups = Counter(camera.group for camera in cameras)
    notes = [
        *_left_out("points", len(rows), len(cloud.points), "drawn, evenly sampled"),
        *_left_out("mapping images", len(mapping), len(statistics.images), "drawn"),
        *_left_out("queries", len(queries), _query_count(subject), "drawn"),
        *_left_out("observed keypoints", kept, _observed(statistics), "in the panels"),
    ]
    taken = len(json.dumps(data)) + BYTES_OF_THE_REST
    files = dict(subject.images)
    for query in subject.queries:
        files |= query.images
    thumbnails = _thumbnails([files.get(c.name) for c in cameras], room - taken)
    notes += _left_out("images", len(thumbnails), len(cameras), "with a photograph")
    html = fragment(
        "view.html",
        data=data | {"thumbnails": thumbnails},
        notes=notes,
        groups=groups.items(),
        with_truth=any(camera.truth is not None for camera in queries),
        point_count=len(rows),
    )
    return Section("view", "3D view", html)


def _mapping_cameras(
    model: pycolmap.Reconstruction, statistics: MapStatistics
) -> Iterator[ViewCamera]:
    """In order of names, evenly sampled where there are too many."""
    for row in _sampled(len(statistics.images), MOST_CAMERAS):
        one = statistics.images[row]
        image = model.find_image_with_name(one.name)
        camera = model.camera(one.camera_id)
        seen = f"{one.observations:,} of {one.keypoints:,}"
        facts = [("keypoints with a map point", seen)]
        if one.mean_error is not None:
            facts.append(("mean reprojection error", f"{one.mean_error:.2f} px"))
        yield ViewCamera(
            name=one.name,
            group="mapping images",
            size=(camera.width, camera.height),
            facts=(*facts, ("camera", _camera_text(camera))),
            pose=image.cam_from_world().matrix(),
        )


def _camera_text(camera: pycolmap.Camera) -> str:
    return (
        f"{camera.model_name}, {camera.width} x {camera.height} px, focal length "
        f"{camera.mean_focal_length():.0f} px"
    )


def _query_cameras(query: QuerySet, subject: Subject) -> Iterator[ViewCamera]:
    names = sorted(query.cameras)
    condition_of = _conditions(query.name, names)
    truth = query.truth if subject.true_frame else {}
    estimated = {name: result.pose for name, result in query.results.items()}
    errors = {error.name: error for error in pose_errors(truth, estimated)}
    for row in _sampled(len(names), MOST_CAMERAS):
        name = names[row]
        result = query.results.get(name)
        facts = [("query of", query.name)]
        if result is None:
            reason = read_reason(query.localized, name) or "not found"
            facts.append(("pose", reason))
        else:
            inliers = f"{result.inliers:,} of {result.correspondences:,} matches"
            facts += [("verdict", result.verdict or ""), ("inliers", inliers)]
        if name in errors and errors[name].localized:
            error = errors[name]
            facts.append(
                (
                    "error",
                    f"{error.position:.3g} m, {error.rotation:.3g}\N{DEGREE SIGN}",
                )
            )
        width, height, *_ = query.cameras[name].camera_params
        yield ViewCamera(
            name=name,
            group=condition_of[name],
            size=(int(width), int(height)),
            facts=tuple(facts),
            pose=None if result is None else result.pose.matrix(),
            truth=truth[name].matrix() if name in truth else None,
        )


def _conditions(dataset: str, names: Sequence[str]) -> dict[str, str]:
    """The group of each query: its dataset, and its condition if there are several."""
    groups = conditions_by_folder(names) if names else {}
    if len(groups) > MOST_CONDITIONS:
        groups = {"": tuple(names)}
    return {
        name: f"{dataset}: {condition}" if len(groups) > 1 else dataset
        for condition, members in groups.items()
        for name in members
    }


def _frustums(poses: Sequence[Array | None], origin: Array) -> dict[str, Any]:
    """Rows of cameras with a pose; their centres, and corners of frustums of length 1.

    Corners are relative to the centre, from the top left clockwise.
    """
    rows = [row for row, pose in enumerate(poses) if pose is not None]
    known = np.array([poses[row] for row in rows]).reshape(-1, 3, 4)
    frustums = camera_frustums(known, 1.0)
    centers = frustums[:, :1]
    return {
        "rows": encoded(np.array(rows, np.uint32)),
        "centers": encoded((centers[:, 0] - origin).astype(np.float32)),
        "corners": encoded((frustums[:, 1:] - centers).astype(np.float32)),
    }


def _keypoints(
    model: pycolmap.Reconstruction, names: Sequence[str]
) -> tuple[dict[str, Any], int]:
    """Keypoints that see a point, of each image those of the longest tracks.

    Returns:
        ``starts`` (N + 1,) of the rows of each image in ``places`` (K, 2), x and y as
        shares of width and height times 65535, and ``points`` (K,), a number that is
        the same for two keypoints of one point; and how many they are.
    """
    most = min(MOST_KEYPOINTS_OF_IMAGE, MOST_KEYPOINTS // max(1, len(names)))
    row_of = {number: row for row, number in enumerate(sorted(model.points3D))}
    length_of = {n: point.track.length() for n, point in model.points3D.items()}
    starts, places, points = [0], [], []
    for name in names:
        image = model.find_image_with_name(name)
        size = np.array([image.camera.width, image.camera.height])
        observed = sorted(
            image.get_observation_points2D(),
            key=lambda one: (-length_of[one.point3D_id], one.point3D_id),
        )[:most]
        places += [one.xy / size for one in observed]
        points += [row_of[one.point3D_id] for one in observed]
        starts.append(len(points))
    shares = np.clip(np.array(places).reshape(-1, 2), 0, 1)
    return {
        "starts": encoded(np.array(starts, np.uint32)),
        "places": encoded(np.rint(shares * 65535).astype(np.uint16)),
        "points": encoded(np.array(points, np.uint32)),
    }, len(points)


def _neighbours(
    statistics: MapStatistics, mapping: Sequence[ViewCamera]
) -> list[list[tuple[int, int]]]:
    """Of each mapping camera: rows of the most covisible others, and points shared."""
    row_of = {camera.name: row for row, camera in enumerate(mapping)}
    names = [image.name for image in statistics.images]
    shared = statistics.covisible
    found = []
    for row, name in enumerate(names):
        if name not in row_of:
            continue
        span = slice(shared.indptr[row], shared.indptr[row + 1])
        others = [
            (row_of[names[other]], int(count))
            for other, count in zip(shared.indices[span], shared.data[span])
            if other != row and names[other] in row_of
        ]
        found.append(
            sorted(others, key=lambda one: (-one[1], one[0]))[:MOST_NEIGHBOURS]
        )
    return found


def _thumbnails(paths: Sequence[Path | None], room: int) -> dict[int, str]:
    """Addresses of thumbnails by row, all of one size, until the room is used up.

    Where there is no room for all, those that get one are evenly spread.
    """
    room = min(room, MOST_THUMBNAIL_BYTES)
    sizes = [side for side in SIDES if side**2 * BYTES_A_PIXEL * len(paths) < room]
    side = max(sizes, default=SIDES[-1])
    found: dict[int, str] = {}
    for row in _sampled(len(paths), max(0, int(room / (side**2 * BYTES_A_PIXEL)))):
        data = thumbnail(paths[row], side)
        if data is None:
            continue
        address = data_address(data, "image/jpeg")
        room -= len(address)
        if room < 0:
            break
        found[int(row)] = address
    return found


def _frame(cloud: MapCloud, origin: Array) -> dict[str, Any]:
    """From where to look, and how large things are."""
    centers = camera_centers(cloud.cam_from_world)
    boxes = [robust_bounds(places) for places in (cloud.points, centers) if len(places)]
    low = np.min([box[0] for box in boxes], axis=0)
    high = np.max([box[1] for box in boxes], axis=0)
    extent = float(np.linalg.norm(high - low)) or 1.0
    forward = cloud.cam_from_world[:, 2, :3].mean(axis=0)
    axes = view_axes(up_axis(cloud.cam_from_world), centers, forward)
    return {
        "axes": axes.tolist(),
        "center": ((low + high) / 2 - origin).tolist(),
        "extent": extent,
        "frustum": frustum_length(centers, extent),
    }


def _sampled(count: int, most: int) -> IndexArray:
    """Rows of ``count``, at most ``most`` of them, evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


def _query_count(subject: Subject) -> int:
    return sum(len(query.cameras) for query in subject.queries)


def _observed(statistics: MapStatistics) -> int:
    return sum(image.observations for image in statistics.images)


def _left_out(what: str, shown: int, of: int, how: str) -> Iterator[str]:
    if shown < of:
        yield f"{shown:,} of {of:,} {what} {how}"
