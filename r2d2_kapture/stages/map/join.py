"""Models of one database joined by the points that they share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pycolmap

Array = npt.NDArray[np.float64]
Shared = list[tuple[int, int, int, int]]
"""Of keypoints that see a point in both of two models: image, keypoint and the two
points."""

LEAST_SHARED = 30
"""Points, as many as COLMAP requires to register an image."""
LEAST_AGREEING = 0.5
"""Share of the common observations that a similarity must bring together."""
DEPTH_ERROR = 0.05
"""Distance between the two places of a shared point, relative to its median depth."""
LARGEST_ERROR = 3.0
"""Reprojection error of a shared point in the other model, relative to the largest
within a model: bundle adjustment has yet to bring them together."""


def join_models(
    found: Iterable[pycolmap.Reconstruction], max_error: float
) -> list[pycolmap.Reconstruction]:
    """Join models that share images, as far as their points agree.

    Args:
        found: models of one database; changed in place.
        max_error: largest reprojection error in pixels within each.

    Returns:
        Those that are left, in the frame of their largest part, the largest first.
    """
    rest = sorted(found, key=_size, reverse=True)
    joined = []
    while rest:
        base = rest.pop(0)
        place = 0
        while place < len(rest):
            similarity = base_from_other(base, rest[place], max_error)
            if similarity is None:
                place += 1
                continue
            other = rest.pop(place)
            other.transform(similarity)
            _add(base, other)
            place = 0  # one that did not fit may fit the larger model
        joined.append(base)
    return sorted(joined, key=_size, reverse=True)


def _size(model: pycolmap.Reconstruction) -> tuple[int, int]:
    return model.num_reg_images(), model.num_points3D()


def base_from_other(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction, max_error: float
) -> pycolmap.Sim3d | None:
    """The similarity that brings shared points together; None where none does.

    Args:
        base, other: models of one database.
        max_error: see ``join_models``.
    """
    shared = _shared(base, other)
    pairs = sorted({(ours, theirs) for *_, ours, theirs in shared})
    if len(pairs) < LEAST_SHARED:
        return None
    target = np.array([base.point3D(ours).xyz for ours, _ in pairs])
    source = np.array([other.point3D(theirs).xyz for _, theirs in pairs])
    options = pycolmap.RANSACOptions(
        max_error=DEPTH_ERROR * _median_depth(base, shared), random_seed=0
    )
    found = pycolmap.estimate_sim3d_robust(source, target, options)
    if found is None:
        return None
    agree = found["inlier_mask"]
    similarity = pycolmap.estimate_sim3d(source[agree], target[agree])
    if similarity is None:
        return None
    errors = _errors(base, other, shared, similarity)
    agreeing = np.mean(errors <= LARGEST_ERROR * max_error)
    return similarity if agreeing >= LEAST_AGREEING else None


def _posed(model: pycolmap.Reconstruction) -> set[int]:
    return set(model.reg_image_ids())


def _shared(base: pycolmap.Reconstruction, other: pycolmap.Reconstruction) -> Shared:
    found: Shared = []
    for image_id in sorted(_posed(base) & _posed(other)):
        ours, theirs = base.image(image_id), other.image(image_id)
        both = set(ours.get_observation_point2D_idxs())
        for row in sorted(both & set(theirs.get_observation_point2D_idxs())):
            pair = ours.point2D(row).point3D_id, theirs.point2D(row).point3D_id
            found.append((image_id, row, *pair))
    return found


def _median_depth(model: pycolmap.Reconstruction, shared: Shared) -> float:
    offsets = [
        model.point3D(point).xyz - model.image(image_id).projection_center()
        for image_id, _, point, _ in shared
    ]
    return float(np.median(np.linalg.norm(offsets, axis=1)))


def _errors(
    base: pycolmap.Reconstruction,
    other: pycolmap.Reconstruction,
    shared: Shared,
    similarity: pycolmap.Sim3d,
) -> Array:
    """(K,) pixels between keypoints of the base and the other's points; infinite behind
    a camera."""
    errors = []
    for image_id, row, _, point in shared:
        image = base.image(image_id)
        xy = image.project_point(similarity * other.point3D(point).xyz)
        known = np.inf if xy is None else xy - image.point2D(row).xy
        errors.append(np.linalg.norm(known))
    return np.array(errors)


def _add(base: pycolmap.Reconstruction, other: pycolmap.Reconstruction) -> None:
    """Add the images and points of a model that lies in the frame of the base."""
    for camera_id in sorted(other.cameras):
        if not base.exists_camera(camera_id):
            base.add_camera(other.camera(camera_id))
    for rig_id in sorted(other.rigs):
        if not base.exists_rig(rig_id):
            base.add_rig(other.rig(rig_id))
    for frame_id in sorted(other.reg_frame_ids()):
        if not base.exists_frame(frame_id):
            _add_frame(base, other, frame_id)
    for point_id in sorted(other.points3D):
        _add_point(base, other.point3D(point_id))


def _add_frame(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction, frame_id: int
) -> None:
    theirs = other.frame(frame_id)
    frame = pycolmap.Frame(frame_id=frame_id, rig_id=theirs.rig_id)
    for data in theirs.data_ids:
        frame.add_data_id(data)
    frame.rig_from_world = theirs.rig_from_world
    base.add_frame(frame)
    for data in theirs.image_ids:
        if not other.exists_image(data.id):
            continue
        image = other.image(data.id)
        places = [pycolmap.Point2D(point.xy) for point in image.points2D]
        added = pycolmap.Image(
            name=image.name,
            points2D=pycolmap.Point2DList(places),
            camera_id=image.camera_id,
            image_id=image.image_id,
        )
        added.frame_id = frame_id
        base.add_image(added)
    base.register_frame(frame_id)


def _add_point(base: pycolmap.Reconstruction, point: pycolmap.Point3D) -> None:
    """Add a point, or what sees it to a point of the base that it is."""
    known = None
    unseen = []
    for element in point.track.elements:
        if not base.exists_image(element.image_id):
            continue
        seen = base.image(element.image_id).point2D(element.point2D_idx)
        if seen.has_point3D():
            known = seen.point3D_id if known is None else known
        else:
            unseen.append(element)
    if known is not None:
        for element in unseen:
            base.add_observation(known, element)
    elif len(unseen) > 1:
        base.add_point3D(point.xyz, pycolmap.Track(elements=unseen), point.color)
