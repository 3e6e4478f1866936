"""The section that shows a map in 3D: points, cameras, queries; drawn by three.js.

three.js comes from the package jupyter-threejs-sage, which contains its minified build
with OrbitControls and wide lines. ``view.js`` builds the scene, ``view_panel.js`` shows
the image of a clicked camera.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import OutputError
from r2d2_kapture.evaluation.map_statistics import MapStatistics
from r2d2_kapture.evaluation.map_view import (
    camera_centers,
    camera_frustums,
    robust_bounds,
)
from r2d2_kapture.pictures.maps import MapCloud, frustum_length
from r2d2_kapture.stages.report.images import thumbnail
from r2d2_kapture.stages.report.page import (
    Section,
    data_address,
    encoded,
    fragment,
    read_template,
)
from r2d2_kapture.stages.report.subject import Subject
from r2d2_kapture.stages.report.view_cameras import (
    ViewCamera,
    mapping_cameras,
    query_cameras,
    sampled,
)

Array = npt.NDArray[np.float64]

THREE_PACKAGE, THREE_BUILD = "jupyter_threejs_sage", "static/r130/three.min.js"
SCRIPTS = ("view_panel.js", "view.js")

MOST_POINTS = 200_000
"""Greatest number of points drawn; three.js rotates as many smoothly on a laptop."""
MOST_KEYPOINTS = 150_000
"""Greatest number of keypoints of all images, longest tracks first."""
MOST_KEYPOINTS_OF_IMAGE = 1500
MOST_MATCHED = 200
"""Greatest number of queries with matches, of all datasets."""
MOST_LINES = 80
"""Greatest number of matches of a query and a map image."""
MOST_NEIGHBOURS = 6
"""Greatest number of covisible images listed for an image."""
SIDES = (640, 480, 320, 240, 160)
"""Lengths in pixels of the longest side of thumbnails, the largest that fits is
used."""
MOST_THUMBNAIL_BYTES = 6_000_000
BYTES_OF_THE_REST = 100_000
TRIED = 6
"""Thumbnails from which the size of all is estimated."""


def view_scripts() -> list[str]:
    """The scripts of the section: three.js, then our own.

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
        subject: with a map of at least one image.
        room: bytes of the page that the section may take; thumbnails use the remaining
            bytes.
    """
    statistics = subject.statistics
    cloud = MapCloud.of_model(subject.model)
    lies = subject.georeference
    mapping = list(mapping_cameras(subject.model, statistics))
    queries = [c for query in subject.queries for c in query_cameras(query, subject)]
    cameras = mapping + queries
    rows = sampled(len(cloud.points), MOST_POINTS)
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
        "matches": _query_matches(subject, cameras, len(mapping)),
        "frame": _frame(cloud, origin, None if lies is None else lies.axes),
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
    """Keypoints that observe a point, those of the longest tracks of each image.

    Returns:
        ``starts`` (N + 1,) of the rows of each image in ``places`` (K, 2), x and y as
        shares of width and height times 65535, and ``points`` (K,), a number that is
        equal for two keypoints of one point; and the number of keypoints.
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
    return {
        "starts": encoded(np.array(starts, np.uint32)),
        "places": _shares(np.array(places).reshape(-1, 2)),
        "points": encoded(np.array(points, np.uint32)),
    }, len(points)


def _neighbours(
    statistics: MapStatistics, mapping: Sequence[ViewCamera]
) -> list[list[tuple[int, int]]]:
    """For each mapping camera: rows of the most covisible others, and shared points."""
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


def _query_matches(
    subject: Subject, cameras: Sequence[ViewCamera], first: int
) -> dict[int, list[dict[str, Any]]]:
    """By row of the query: the best map images, and matches with them.

    Args:
        subject: of the view.
        cameras: of the view, with queries from the row ``first`` on.
        first: row of the first query.

    Returns:
        ``row`` of the map image; ``count`` and ``what``: inliers, or matches of queries
        without pose; and ``places`` of some of them, (K, 4), x and y in the query and
        in the map image as shares of width and height times 65535.
    """
    row_of = {camera.name: row for row, camera in enumerate(cameras)}
    found: dict[int, list[dict[str, Any]]] = {}
    queries = [
        (row_of[name], query, views)
        for query in subject.queries
        for views in [subject.query_views.get(query.name)]
        if views is not None
        for name in sorted(query.cameras)
        if row_of.get(name, -1) >= first
    ]
    for place in sampled(len(queries), MOST_MATCHED):
        row, query, views = queries[place]
        result = query.results.get(cameras[row].name)
        for view in views.all(cameras[row].name, result)[:MOST_NEIGHBOURS]:
            other = row_of.get(view.image)
            agree = (
                np.flatnonzero(view.inliers) if result else np.arange(len(view.inliers))
            )
            if other is None or not len(agree):
                continue
            some = agree[sampled(len(agree), MOST_LINES)]
            places = [
                colmap_from_kapture(xy[some]) / cameras[one].size
                for one, xy in ((row, view.xy_query), (other, view.xy_image))
            ]
            found.setdefault(row, []).append(
                {
                    "row": other,
                    "count": len(agree),
                    "what": "inliers" if result else "matches",
                    "places": _shares(np.hstack(places)),
                }
            )
    return found


def _shares(places: Array) -> dict[str, str]:
    """Shares of width and height, from 0 to 1, in 16 bits."""
    return encoded(np.rint(np.clip(places, 0, 1) * 65535).astype(np.uint16))


def _thumbnails(paths: Sequence[Path | None], room: int) -> dict[int, str]:
    """Data addresses of thumbnails by row, of equal size, as far as the room suffices.

    Their size is estimated from a few of them. If there is no room for all, an even
    sample gets one.
    """
    room = min(room, MOST_THUMBNAIL_BYTES)
    for side in SIDES:
        some = [_address(paths[row], side) for row in sampled(len(paths), TRIED)]
        each = max(1, sum(map(len, some)) / max(1, len(some)))
        if each * len(paths) < 0.9 * room:
            break
    found: dict[int, str] = {}
    for row in sampled(len(paths), max(0, int(room / each))):
        address = _address(paths[row], side)
        room -= len(address)
        if room < 0:
            break
        if address:
            found[int(row)] = address
    return found


def _address(path: Path | None, side: int) -> str:
    """Bytes of a thumbnail; empty if the image cannot be read."""
    data = thumbnail(path, side)
    return "" if data is None else data_address(data, "image/jpeg")


def _frame(cloud: MapCloud, origin: Array, axes: Array | None) -> dict[str, Any]:
    """Initial viewpoint and sizes of the scene."""
    centers = camera_centers(cloud.cam_from_world)
    boxes = [robust_bounds(places) for places in (cloud.points, centers) if len(places)]
    low = np.min([box[0] for box in boxes], axis=0)
    high = np.max([box[1] for box in boxes], axis=0)
    extent = float(np.linalg.norm(high - low)) or 1.0
    axes = cloud.estimated_axes() if axes is None else axes
    return {
        "axes": axes.tolist(),
        "center": ((low + high) / 2 - origin).tolist(),
        "extent": extent,
        "frustum": frustum_length(centers, extent),
    }


def _query_count(subject: Subject) -> int:
    return sum(len(query.cameras) for query in subject.queries)


def _observed(statistics: MapStatistics) -> int:
    return sum(image.observations for image in statistics.images)


def _left_out(what: str, shown: int, of: int, how: str) -> Iterator[str]:
    if shown < of:
        yield f"{shown:,} of {of:,} {what} {how}"
