"""Calibration of guessed cameras: as guessed, or with focal lengths from pairs.

Focal lengths from the fundamental matrices of pairs (COLMAP's view graph calibration)
spare bundle adjustment a poor initial guess, and their relative poses reject more wrong
matches. If the matrices are poor they are far off, and half of the images are lost.
Only a map shows which case holds, so both maps are made and compared on the same
matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.stages.map.workspace import (
    Workspace,
    colmap_errors,
    guessed_cameras,
    read_verified,
)

Models = list[pycolmap.Reconstruction]
Attempt = Callable[[Workspace, frozenset[str] | None], Models]
"""Maps a workspace, or only the named images; returns the main model first."""
Array = npt.NDArray[np.float64]

TRIAL_IMAGES = 100
"""Images mapped both ways; of more, only the best connected ones."""
NEAR_TIE = 0.01
"""Relative difference up to which agreements count as equal."""
MIN_POINTS_SHARE = 0.75
"""Least share of points, relative to the map with the best agreement."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedPair:
    """The verified matches of two images, in pixels of COLMAP's origin.

    Attributes:
        image_ids: of the two.
        xy: (K, 2) of each.
    """

    image_ids: tuple[int, int]
    xy: tuple[Array, Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A map and its quality.

    Attributes:
        models: empty if mapping failed.
        agreement: 0 to 1, see ``agreement``; of the first model.
        failure: why there is no model.
    """

    models: Models
    agreement: float = 0.0
    failure: ReconstructionError | None = None

    @property
    def images(self) -> int:
        """Registered images of the first model."""
        return self.models[0].num_reg_images() if self.models else 0

    @property
    def points(self) -> int:
        """Points of the first model."""
        return self.models[0].num_points3D() if self.models else 0

    @property
    def error(self) -> float:
        """Mean reprojection error in pixels."""
        if not self.models:
            return float("inf")
        return float(self.models[0].compute_mean_reprojection_error())

    def numbers(self) -> dict[str, Any]:
        """Numbers for a report; the mean reprojection error is in pixels."""
        if not self.models:
            return {"registered_images": 0}
        model = self.models[0]
        return {
            "registered_images": model.num_reg_images(),
            "points": self.points,
            "mean_reprojection_error": round(self.error, 4),
            "agreement": round(self.agreement, 4),
        }


def map_calibrated(
    config: MapConfig, workspace: Workspace, attempt: Attempt
) -> tuple[Models, dict[str, Any]]:
    """Map with guessed or estimated focal lengths, whichever gives the better map.

    See ``better``; if both fail, the reason is that of the guess.

    Returns:
        The models, and for a report ``calibration`` and, if both were tried, the
        numbers of both in ``calibrations``.

    Raises:
        ReconstructionError: mapping failed.
    """
    content = read_verified(workspace.database)
    if config.calibration == "none" or not guessed_cameras(config, workspace, content):
        return attempt(workspace.copy(), None), {"calibration": "none"}
    calibrated = _calibrated(config, workspace)
    if config.calibration == "view_graph":
        return attempt(calibrated, None), {"calibration": "view_graph"}
    pairs = verified_pairs(workspace.database)
    names = None
    if len(content.paired) > TRIAL_IMAGES:
        chosen = best_connected(pairs, TRIAL_IMAGES)
        names = frozenset(i.name for i in content.images if i.image_id in chosen)
        pairs = [pair for pair in pairs if chosen.issuperset(pair.image_ids)]
    guessed = workspace.in_phase("cameras as guessed")
    calibrated = calibrated.in_phase("cameras calibrated from pairs")
    trials = {
        "none": _try(attempt, guessed.copy(), names, pairs, config),
        "view_graph": _try(attempt, calibrated.copy(), names, pairs, config),
    }
    best = better(trials)
    failure = trials[best].failure
    if failure is not None and names is None:
        raise failure
    models = trials[best].models
    if names is not None:
        chosen_cameras = calibrated if best == "view_graph" else guessed
        models = attempt(chosen_cameras.in_phase("all photographs").copy(), None)
    numbers = {name: trial.numbers() for name, trial in trials.items()}
    return models, {"calibration": best, "calibrations": numbers}


def better(trials: Mapping[str, Trial]) -> str:
    """The name of the better map.

    It has more images in the first model, then cameras that agree better with the
    verified matches, which are the same for all. Near ties are decided by the lower
    reprojection error, unless that map has far fewer points: cleaner matches give
    better poses. Of equals the first.
    """
    most = max(trial.images for trial in trials.values())
    found = {name: trial for name, trial in trials.items() if trial.images == most}
    best = max(found.values(), key=lambda trial: trial.agreement)
    near = {
        name: trial
        for name, trial in found.items()
        if trial.agreement >= (1 - NEAR_TIE) * best.agreement
        and trial.points >= MIN_POINTS_SHARE * best.points
    }
    return min(near, key=lambda name: near[name].error)


def verified_pairs(database: Path) -> list[VerifiedPair]:
    """The verified matches of a database."""
    pairs = []
    with quiet_pycolmap(), closing(pycolmap.Database.open(str(database))) as opened:
        xy = {
            image.image_id: opened.read_keypoints(image.image_id)[:, :2]
            for image in opened.read_all_images()
        }
        for pair_id in opened.read_two_view_geometry_num_inliers()[0]:
            first, second = pycolmap.pair_id_to_image_pair(pair_id)
            rows = opened.read_two_view_geometry(first, second).inlier_matches
            pairs.append(
                VerifiedPair(
                    image_ids=(first, second),
                    xy=(
                        xy[first][rows[:, 0]].astype(np.float64),
                        xy[second][rows[:, 1]].astype(np.float64),
                    ),
                )
            )
    return pairs


def best_connected(pairs: Sequence[VerifiedPair], count: int) -> frozenset[int]:
    """Connected images: the best pair, then repeatedly the image with most matches."""
    links: dict[int, dict[int, int]] = {}
    for pair in pairs:
        first, second = pair.image_ids
        links.setdefault(first, {})[second] = len(pair.xy[0])
        links.setdefault(second, {})[first] = len(pair.xy[0])
    best = max(pairs, key=lambda pair: (len(pair.xy[0]), pair.image_ids))
    chosen, matches = set(best.image_ids), dict.fromkeys(links, 0)
    for image_id in best.image_ids:
        for other, number in links[image_id].items():
            matches[other] += number
    while len(chosen) < count:
        open_ones = [i for i in links if i not in chosen and matches[i]]
        if not open_ones:
            break
        following = max(open_ones, key=lambda image_id: (matches[image_id], image_id))
        chosen.add(following)
        for other, number in links[following].items():
            matches[other] += number
    return frozenset(chosen)


def agreement(
    model: pycolmap.Reconstruction, pairs: Sequence[VerifiedPair], max_error: float
) -> float:
    """Agreement of the cameras of a model with matches, 0 to 1.

    The area under the curve of the share of matches whose distance to the epipolar
    line (Sampson's, first order) is below a threshold of 0 to ``max_error`` pixels.
    Matches of images that the model lacks count as wrong.
    """
    images = {i.image_id: i for i in model.images.values() if i.has_pose}
    total = sum(len(pair.xy[0]) for pair in pairs)
    agreed = 0.0
    for pair in pairs:
        if images.keys() >= set(pair.image_ids):
            first, second = (images[image_id] for image_id in pair.image_ids)
            errors = epipolar_errors(first, second, *pair.xy)
            agreed += float(np.clip(1 - errors / max_error, 0, None).sum())
    return agreed / max(total, 1)


def epipolar_errors(
    first: pycolmap.Image, second: pycolmap.Image, xy1: Array, xy2: Array
) -> Array:
    """(K,) first-order distances in pixels of matches to the geometry of two images.

    Infinite if a keypoint has no ray.
    """
    second_from_first = second.cam_from_world() * first.cam_from_world().inverse()
    x, y, z = second_from_first.translation
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    essential = cross @ second_from_first.rotation.matrix()
    rays1, rays2 = (
        np.column_stack([image.camera.cam_from_img(xy), np.ones(len(xy))])
        for image, xy in ((first, xy1), (second, xy2))
    )
    lines1, lines2 = rays2 @ essential, rays1 @ essential.T
    # per pixel, the algebraic error changes by the line's normal over the focal length
    gradient = np.hypot(
        np.linalg.norm(lines1[:, :2], axis=1) / first.camera.mean_focal_length(),
        np.linalg.norm(lines2[:, :2], axis=1) / second.camera.mean_focal_length(),
    )
    algebraic = np.abs((rays2 * lines2).sum(axis=1))
    errors = np.full(len(xy1), np.inf)
    known = np.isfinite(algebraic) & (gradient > 0)
    errors[known] = algebraic[known] / gradient[known]
    return errors


def _calibrated(config: MapConfig, workspace: Workspace) -> Workspace:
    """A copy whose guessed cameras have focal lengths estimated from pairs."""
    copy = workspace.copy()
    options = pycolmap.ViewGraphCalibrationOptions(random_seed=config.seed)
    with quiet_pycolmap(), colmap_errors():
        pycolmap.calibrate_view_graph(str(copy.database), options)
    return copy


def _try(
    attempt: Attempt,
    workspace: Workspace,
    names: frozenset[str] | None,
    pairs: Sequence[VerifiedPair],
    config: MapConfig,
) -> Trial:
    try:
        models = attempt(workspace, names)
    except ReconstructionError as error:
        return Trial(models=[], failure=error)
    found = agreement(models[0], pairs, config.max_reprojection_error)
    return Trial(models=models, agreement=found)
