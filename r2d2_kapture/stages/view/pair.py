"""Two images, their matches and their geometry, as pictures and numbers in files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.pictures.overlay import draw_overlay
from r2d2_kapture.stages.two_view import Cameras, VerifiedMatches
from r2d2_kapture.stages.view.sources import file_stem, short_names
from r2d2_kapture.types import FloatArray, PairMatches, Report

MATRICES = {
    "homography": ("H",),
    "fundamental matrix": ("F",),
    "essential matrix": ("E", "F"),
}
"""Fields of a geometry that are written with the numbers."""
FEW_INLIERS = 30
CHANCE = 0.25
"""Share of few matches that RANSAC fits by chance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewedPair:
    """A pair of images to draw.

    Attributes:
        names: as displayed.
        paths: of the image files.
        keypoints: (N, 2) of each, in pixels from the centre of the first.
        matches: between them.
        verified: the matches with their geometry; None if unknown.
        cameras: known ones, in COLMAP's pixel origin.
        made_of: further settings to record with the numbers.
    """

    names: tuple[str, str]
    paths: tuple[Path, Path]
    keypoints: tuple[FloatArray, FloatArray]
    matches: PairMatches
    verified: VerifiedMatches | None
    cameras: Cameras | None = None
    made_of: Mapping[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> tuple[FloatArray, FloatArray]:
        """(K, 2) matched pixels of each image."""
        first, second = self.keypoints
        rows = self.matches.indices
        return first[rows[:, 0]], second[rows[:, 1]]


def report_of(
    pair: ViewedPair, folder: Path, started: float, notes: Sequence[str] = ()
) -> Report:
    """Write the files of a pair and return a report.

    Args:
        pair: to write.
        folder: see write_pair.
        started: start of the run, by time.monotonic.
        notes: warnings on the pair.

    Raises:
        ImageError, OutputError: as write_pair.
    """
    short, outputs = write_pair(pair, folder)
    doubt = _doubt(pair)
    return Report(
        stage="view",
        done=1,
        skipped=0,
        failed=(),
        seconds=time.monotonic() - started,
        unit="pair",
        outputs=tuple(outputs),
        details=short,
        warnings=(*notes, *doubt),
    )


def _doubt(pair: ViewedPair) -> tuple[str, ...]:
    """The warnings on a geometry that may be wrong."""
    verified = pair.verified
    if verified is None:
        return ()
    count, inliers = len(pair.matches), len(verified)
    if verified.model is None:
        return (
            f"found no geometry with enough inliers among {count} matches: the images "
            "may show different scenes, or overlap too little; try more keypoints "
            "(--top-k), a larger --max-size, or a smaller --min-inliers",
        )
    if inliers < FEW_INLIERS and inliers < CHANCE * count:
        return (
            f"only {inliers} of {count} matches agree with the {verified.model}, which "
            "may be by chance: look at the picture",
        )
    return ()


def write_pair(pair: ViewedPair, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Draw a pair, and write its numbers next to the pictures.

    Returns:
        A summary of the numbers for a report, and the files: ``A-B.matches.png``,
        ``A-B.overlay.png`` if a homography was found, and ``A-B.matches.json``.

    Raises:
        ImageError: an image cannot be read.
        OutputError: files cannot be written.
    """
    first, second = short_names(pair.names)
    stem = file_stem(first, second)
    image1, image2 = map(read_rgb, pair.paths)
    picture = folder / f"{stem}.matches.png"
    figure = draw_matches(
        image1,
        image2,
        *pair.points,
        None if pair.verified is None else pair.verified.inliers,
        title=f"{first} and {second}",
        words=f"matches are inliers{_of_model(pair.verified)}",
    )
    save(figure, picture)
    outputs = [picture]
    homography = None if pair.verified is None else pair.verified.homography
    if homography is not None:
        overlay = folder / f"{stem}.overlay.png"
        title = (
            f"{first} warped onto {second} by the homography: "
            "checkerboard of both; first red, second cyan, grey where they agree"
        )
        save(draw_overlay(image1, image2, homography, title=title), overlay)
        outputs.append(overlay)
    numbers = folder / f"{stem}.matches.json"
    sizes = [(image.shape[1], image.shape[0]) for image in (image1, image2)]
    write_json_atomic(numbers, _numbers(pair, sizes, outputs))
    return _in_short(pair), [*outputs, numbers]


def _of_model(verified: VerifiedMatches | None) -> str:
    if verified is None or verified.model is None:
        return ""
    article = "an" if verified.model.startswith("e") else "a"
    return f" of {article} {verified.model}"


def _in_short(pair: ViewedPair) -> dict[str, Any]:
    counts = " and ".join(str(len(keypoints)) for keypoints in pair.keypoints)
    short: dict[str, Any] = {"keypoints": counts, "matches": str(len(pair.matches))}
    if pair.verified is None:
        return short
    kind = pair.verified.kind.replace("_", " ")
    model = pair.verified.model
    short["inliers"] = str(len(pair.verified))  # an unknown geometry is reported too
    short["geometry"] = "none" if model is None else f"{model} ({kind})"
    error = _median_error(pair)
    return short if error is None else short | {"median_error": error}


def _numbers(
    pair: ViewedPair, sizes: Sequence[tuple[int, int]], pictures: Sequence[Path]
) -> dict[str, Any]:
    cameras = pair.cameras or (None, None)
    images = [
        {
            "name": name,
            "path": str(path),
            "size": list(size),
            "keypoints": len(keypoints),
            **({} if camera is None else {"camera": _camera(camera)}),
        }
        for name, path, size, keypoints, camera in zip(
            pair.names, pair.paths, sizes, pair.keypoints, cameras
        )
    ]
    return {
        "images": images,
        **pair.made_of,
        "matches": len(pair.matches),
        **({} if pair.verified is None else _geometry(pair, pair.verified)),
        "pictures": [path.name for path in pictures],
    }


def _camera(camera: pycolmap.Camera) -> dict[str, Any]:
    return {"model": camera.model_name, "params": camera.params.tolist()}


def _geometry(pair: ViewedPair, verified: VerifiedMatches) -> dict[str, Any]:
    geometry = verified.geometry
    values: dict[str, Any] = {
        "inliers": len(verified),
        "geometry": verified.model,
        "configuration": verified.kind,
    }
    if verified.model is None:
        return values
    values["median_error_px"] = _median_error(pair)
    values["pixel_origin"] = "corner"
    for name in MATRICES[verified.model]:
        matrix = getattr(geometry, name)
        if matrix is not None:
            values[name] = matrix.tolist()
    pose = geometry.cam2_from_cam1
    if pose is not None:
        values["cam2_from_cam1"] = {
            "rotation_xyzw": pose.rotation.quat.tolist(),
            "translation": pose.translation.tolist(),
        }
    return values


def _median_error(pair: ViewedPair) -> float | None:
    """Errors of the inliers in pixels: transfer error of the homography, or Sampson's
    distance to the epipolar line."""
    verified = pair.verified
    if verified is None or not len(verified):
        return None
    xy1, xy2 = (
        colmap_from_kapture(xy[verified.inliers].astype(np.float64))
        for xy in pair.points
    )
    if verified.homography is not None:
        mapped = np.column_stack([xy1, np.ones(len(xy1))]) @ verified.homography.T
        return float(
            np.median(np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - xy2, axis=1))
        )
    F = verified.geometry.F
    if F is None:
        return None
    squared = pycolmap.compute_squared_sampson_error(xy1, xy2, F)
    return float(np.sqrt(np.median(squared)))
