"""Pictures of two photographs: extracted, matched, verified and drawn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.rotations import read_rotations
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.config.view import ViewConfig
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.core.quarter_turns import in_stored_pixels, turned
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.colmap.cameras import photograph_camera
from r2d2_kapture.io.images.decoding import (
    check_file,
    image_orientation,
    read_rgb,
)
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.matching.matcher import build_matcher
from r2d2_kapture.stages.extract import turns_like_the_first
from r2d2_kapture.stages.turned_images import INVARIANT, by_chance
from r2d2_kapture.stages.two_view import Cameras, match, verify_by
from r2d2_kapture.stages.view.pair import ViewedPair, report_of
from r2d2_kapture.stages.view.sources import short_names
from r2d2_kapture.types import LocalFeatures, PairMatches, Report


def run(
    config: ViewConfig,
    extractor: Extractor,
    matching: MatchConfig,
    verification: VerifyConfig,
    *,
    images: tuple[Path, Path],
    output_dir: Path | None = None,
    rotations: str = "off",
) -> Report:
    """Match two image files, and draw matches and geometry.

    Args:
        config: of the cameras.
        extractor: of both images.
        matching, verification: settings of these steps.
        images: the files.
        output_dir: folder of pictures and numbers, see write_pair; None takes that of
            the first image. Existing files are replaced.
        rotations: quarter turns in which the network sees the images; those that
            matches decide are of the second. Pictures show the images as stored.

    Raises:
        ConfigError: an unknown camera model, or parameters that do not match it.
        ImageError: an image cannot be read.
        OutputError: files cannot be written.
    """
    started = time.monotonic()
    names = short_names([path.absolute().as_posix() for path in images])
    for path in images:
        check_file(path)
    asked = read_rotations(rotations)
    turns: Sequence[Turn] = (0, 0)
    if not asked.is_off:
        turns = turns_like_the_first(extractor, asked, images)
    with Progress("view", "photograph", len(images)) as bar:
        first, second = (
            _extracted(extractor, path, turn, bar) for path, turn in zip(images, turns)
        )
    made_of: dict[str, Any] = {
        "model": extractor.label,
        "settings": extractor.provenance,
    }
    if not asked.is_off:
        made_of["turned"] = dict(zip(names, turns))
    pair = matched_pair(
        (names[0], names[1]),
        images,
        (first, second),
        match(first, second, matcher=build_matcher(matching.matcher)),
        verification,
        known_cameras(config, images, (first, second)),
        made_of,
    )
    notes = extractor.warnings
    if asked.is_off and extractor.name not in INVARIANT:
        notes += _turned_apart(pair.names, images) or _maybe_turned(pair)
    return report_of(pair, output_dir or images[0].parent, started, notes)


def _turned_apart(names: tuple[str, str], images: tuple[Path, Path]) -> tuple[str, ...]:
    """The warning on photographs that viewers rotate by different angles."""
    first, second = map(image_orientation, images)
    if first == second:
        return ()
    return (
        f"EXIF orientation is {first} in {names[0]} and {second} in {names[1]}: pixels "
        "are matched as stored, turned against each other, and few match so; give "
        "--rotations exif or auto",
    )


def _maybe_turned(pair: ViewedPair) -> tuple[str, ...]:
    """The warning on matches that may agree by chance alone."""
    inliers, matches = len(pair.verified or ()), len(pair.matches)
    if not by_chance(inliers, matches):
        return ()
    return (
        f"{inliers} of {matches} matches agree, no more than by chance: if one of the "
        "photographs is turned by 90 or 180 degrees, give --rotations auto",
    )


def _extracted(
    extractor: Extractor, path: Path, turn: Turn, bar: Progress
) -> LocalFeatures:
    features = extractor(turned(read_rgb(path), turn))
    bar.update()
    return in_stored_pixels(features, turn)


def matched_pair(
    names: tuple[str, str],
    paths: tuple[Path, Path],
    features: tuple[LocalFeatures, LocalFeatures],
    matches: PairMatches,
    verification: VerifyConfig,
    cameras: Cameras | None,
    made_of: Mapping[str, Any],
) -> ViewedPair:
    """Verify the matches of two images; see ViewedPair."""
    return ViewedPair(
        names=names,
        paths=paths,
        keypoints=(features[0].keypoints, features[1].keypoints),
        matches=matches,
        verified=verify_by(verification, *features, matches, cameras),
        cameras=cameras,
        made_of=made_of,
    )


def known_cameras(
    config: ViewConfig,
    images: tuple[Path, Path],
    features: tuple[LocalFeatures, LocalFeatures],
) -> Cameras | None:
    """The cameras of two images from settings or EXIF; None if unknown.

    Raises:
        ConfigError: an unknown camera model, or parameters that do not match it.
    """
    first, second = (
        _camera(config, path, each.image_size) for path, each in zip(images, features)
    )
    return None if first is None or second is None else (first, second)


def _camera(
    config: ViewConfig, path: Path, size: tuple[int, int]
) -> pycolmap.Camera | None:
    if config.camera_model is None or config.camera_params is None:
        return photograph_camera(path, size) if config.exif else None
    given = f"--camera-model {config.camera_model} --camera-params "
    given += config.camera_params
    if config.camera_model not in pycolmap.CameraModelId.__members__:
        known = sorted(pycolmap.CameraModelId.__members__.keys() - {"INVALID"})
        raise ConfigError(f"{given}: expected one of {', '.join(known)}")
    camera = pycolmap.Camera.create_from_model_name(
        0, config.camera_model, 1.0, size[0], size[1]
    )
    expected = camera.params_info
    try:
        params = [float(value) for value in config.camera_params.split(",")]
    except ValueError:
        params = []
    if len(params) != len(camera.params) or not np.isfinite(params).all():
        raise ConfigError(f"{given}: expected the numbers {expected}")
    camera.params = params
    return camera
