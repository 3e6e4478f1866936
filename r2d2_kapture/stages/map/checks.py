"""Checks of a map, and reasons for images that are not in it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Container, Iterator, Sequence
from pathlib import Path

import pycolmap

from r2d2_kapture.config.map import MapConfig, MapMethod
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.model import DatabaseContent
from r2d2_kapture.io.kapture.trajectories import CameraPoses
from r2d2_kapture.stages.localize import CREDIBLE
from r2d2_kapture.stages.turned_images import WAY_OUT, by_chance
from r2d2_kapture.types import Failure, counted, some_names

MIN_POINTS = 30
"""Least points of a map: twice the inliers that localization requires, and as many as
COLMAP's mapper requires to register an image."""

INCREMENTAL_UP_TO = 5000
"""Images with verified matches that ``auto`` maps incrementally; the time of more grows
faster than their number."""

MIN_SEEN = 4
"""Points that an estimated pose rests on at least: three leave up to four poses."""

TRIANGULATION = (
    "--points-from triangulation (--map.points-from triangulation in a pipeline)"
)
"""The flag of points that need no depth maps."""


def drop_implausible(
    model: pycolmap.Reconstruction, constant: Container[int], min_angle: float
) -> None:
    """Remove images whose refined camera is not credible.

    COLMAP tests this before its last bundle adjustment. Points that remain with too
    small an angle are removed too.

    Args:
        model: changed in place.
        constant: ids of cameras that were not refined.
        min_angle: in degrees, between the rays of a point.
    """
    frames = {
        image.frame_id
        for image in model.images.values()
        if image.has_pose
        and image.camera_id not in constant
        and image.camera.has_bogus_params(*CREDIBLE)
    }
    _drop_frames(model, frames, min_angle)


def drop_unseen(
    model: pycolmap.Reconstruction, min_angle: float, least: int = 1
) -> None:
    """Remove frames (an image, or those of a rig at a time) that see too few points.

    Where an image sees no points, COLMAP registers it by its matches alone, and keeps
    it there if no point comes of them. A pose that only points would confirm is wrong
    as often as not.

    Args:
        model: changed in place.
        min_angle: see ``drop_implausible``.
        least: points that a frame must see.
    """
    seen: Counter[int] = Counter()
    for image in model.images.values():
        if image.has_pose:
            seen[image.frame_id] += image.num_points3D
    few = {frame_id for frame_id, points in seen.items() if points < least}
    _drop_frames(model, few, min_angle)


def _drop_frames(
    model: pycolmap.Reconstruction, frames: Collection[int], min_angle: float
) -> None:
    if not frames:
        return
    manager = pycolmap.ObservationManager(model)
    for frame_id in sorted(frames):
        manager.deregister_frame(frame_id)
    manager.filter_points3D_with_small_triangulation_angle(
        min_angle, set(model.points3D)
    )


def check_map(
    model: pycolmap.Reconstruction | None,
    content: DatabaseContent,
    *,
    poses_known: bool,
) -> None:
    """Refuse a model with too few points for localization.

    Args:
        model: None if mapping failed.
        content: of the database.
        poses_known: whether poses come from the dataset.

    Raises:
        ReconstructionError: with the reason and the way out.
    """
    points = 0 if model is None else model.num_points3D()
    if points >= MIN_POINTS:
        return
    pairs = counted(content.verified_pairs, "verified pair")
    source = f"{pairs} of {counted(len(content.paired), 'image')}"
    if poses_known:
        raise ReconstructionError(
            f"{points or 'no'} 3D points were found from {source}, expected "
            f"{MIN_POINTS} or more; check that the poses are cam_from_world, belong to "
            "these images and are at different places, or try --method incremental"
        )
    found = (
        f"no image could be registered from {source}"
        if model is None
        else f"{model.num_reg_images()} images and {points} 3D points were registered "
        f"from {source}, expected {MIN_POINTS} points or more"
    )
    raise ReconstructionError(
        f"{found}; images from one place give no depth: move sideways between them; "
        "more overlapping images, more keypoints, known cameras, or --rotations auto "
        "for photographs turned against each other may help"
    )


def left_out(
    models: Sequence[pycolmap.Reconstruction],
    content: DatabaseContent,
    config: MapConfig,
    named: Container[str] = (),
) -> tuple[Failure, ...]:
    """The images of a database that observe no point of the first model, with reasons.

    Args:
        models: the map, then further models.
        content: of the database.
        config: settings of the map.
        named: names of images that are reported elsewhere.
    """
    seeing = _seeing(models[0])
    posed = set(models[0].reg_image_ids())
    further = {
        image_id: len(images)
        for images in map(_seeing, reversed(models[1:]))
        for image_id in images
    }
    names = {image.image_id: image.name for image in content.images}
    sizes = Counter((one.width, one.height) for one in content.cameras.values())
    failed = []
    for image in content.images:
        if image.image_id in seeing or image.name in named:
            continue
        inliers = content.most_inliers.get(image.image_id, 0)
        partner = content.best_partner.get(image.image_id, image.image_id)
        verified = f"{inliers} verified matches with '{names[partner]}'"
        if partner in seeing:
            verified = f"up to {verified}"
        else:
            verified = f"{verified}, which is not in the map either"
        if image.image_id not in content.matched:
            reason = (
                "no matches with any image; check that it has keypoints and is paired "
                "(kapture_r2d2_pairs)"
            )
        elif not inliers:
            reason = (
                "none of its pairs is verified; pair it with images of more overlap, "
                "or extract more keypoints"
            )
        elif inliers < config.min_matches:
            reason = (
                f"at most {inliers} verified matches with an image, expected "
                f"{config.min_matches} (--min-matches); pair it with images of more "
                "overlap, or extract more keypoints"
            )
        elif image.image_id in further:
            reason = (
                f"in a further model of {further[image.image_id]} images that is not "
                "connected to the map; add images between the two"
            )
        elif config.points_from != "triangulation":
            reason = (
                f"observes no 3D point, with {verified}; points come from depth "
                f"({config.points_from}), so that its depth map or its pose may be "
                f"wrong: correct it, or {TRIANGULATION}"
            )
        elif config.method == "triangulate":
            reason = (
                f"observes no 3D point, with {verified}; its pose may be wrong: "
                "correct trajectories.txt or rigs.txt, or estimate all poses with "
                "--method incremental"
            )
        elif image.image_id in posed:
            reason = (
                f"posed by its rig, but observes no 3D point, with {verified}; more "
                "keypoints may help"
            )
        else:
            camera = content.cameras[image.camera_id]
            tries = ["more images around it", "more keypoints", "known cameras"]
            if sizes[camera.width, camera.height] > 1:  # others that may be one
                tries.append("--camera-mode single if one camera took all")
            reason = (
                f"not registered, with {verified}; try {', '.join(tries[:-1])}, or "
                f"{tries[-1]}"
            )
        failed.append(Failure(name=image.name, reason=reason))
    return tuple(sorted(failed, key=lambda failure: failure.name))


def maybe_turned(
    model: pycolmap.Reconstruction, content: DatabaseContent
) -> Iterator[str]:
    """The warning on images that no more than chance connects with a map.

    Args:
        model: the map, of features that are not invariant to rotation.
        content: of the database.
    """
    seeing = _seeing(model)
    connected = {
        image_id
        for pair, counts in content.counts.items()
        if not by_chance(*counts) and not seeing.isdisjoint(pair)
        for image_id in pair
    }
    apart = sorted(
        image.name
        for image in content.images
        if image.image_id in content.matched - seeing - connected
    )
    if apart:
        yield (
            f"{counted(len(apart), 'image')} had no more matches with the map than by "
            f"chance: {some_names(apart)}; {WAY_OUT}"
        )


def _seeing(model: pycolmap.Reconstruction) -> frozenset[int]:
    """Ids of the images that observe a point."""
    return frozenset(
        image.image_id
        for image in model.images.values()
        if image.has_pose and image.num_points3D
    )


def choose_method(
    config: MapConfig, content: DatabaseContent, poses: CameraPoses, source: Path
) -> MapMethod:
    """The given method, or the one that the dataset's poses allow.

    Raises:
        ReconstructionError: only some images have poses, or known poses are requested
            and there are none.
    """
    paired = [i.name for i in content.images if i.image_id in content.paired]
    without = [name for name in paired if name not in poses.cam_from_world]
    posed = len(paired) - len(without)
    if config.points_from != "triangulation":  # depth maps give no poses
        config = dataclasses.replace(config, method="triangulate")
    if config.method == "auto" and without and posed:
        raise ReconstructionError(
            f"{source}: {posed} of {len(paired)} images have a pose, not for example "
            f"'{without[0]}'; choose --method triangulate to leave the others out, or "
            "incremental to estimate all poses"
        )
    if config.method == "triangulate" and posed < 2:
        raise ReconstructionError(
            f"{source}: {posed} of {len(paired)} images have a pose, expected 2 or "
            "more; complete trajectories.txt, or choose --method incremental"
        )
    if config.method == "auto" and without:
        return "incremental" if len(paired) <= INCREMENTAL_UP_TO else "hierarchical"
    if config.method == "auto":
        return "triangulate"
    return config.method
