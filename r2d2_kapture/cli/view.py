"""kapture_r2d2_view: pictures of two matched images, or of keypoints."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from r2d2_kapture.cli.common import (
    EXIT_OK,
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.extraction_flags import (
    add_exclude_flag,
    add_extraction_flags,
    add_masks_flag,
    chosen_checkpoint,
    extract_config,
    parse_extraction,
)
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.config.view import ViewConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.images.search import find_images
from r2d2_kapture.types import Report

OWN_FLAGS = ("max_keypoints",)
"""Flags that are named like a setting of D2-Net, and mean what is drawn."""
MATCH_FLAGS = ("ratio", "min_similarity")
VERIFY_FLAGS = ("max_error", "min_inliers", "max_trials", "seed")
"""What matching and verification of two images alone need."""

DESCRIPTION = """Draw two images and their matches, or the keypoints of images.

Two image files are extracted, matched and verified: A-B.matches.png has lines between
matches, green where they agree with the geometry found and faint red elsewhere;
A-B.overlay.png is A warped onto B, where that geometry is a homography;
A-B.matches.json has the numbers. With --keypoints, and for any other number of images:
IMAGE.keypoints.png (circle size: patch, colour: score) and IMAGE.maps.png (reliability
and repeatability, or soft detection) of every image."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = _parser()
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    if not namespace.images:
        raise ConfigError("no image given, expected files, folders or patterns")
    pair = _two_files(namespace.images)
    if pair is None or namespace.keypoints:
        return finish(_keypoints(namespace))
    return finish(_two_images(namespace, pair))


def _parser() -> ArgumentParser:
    parser = make_parser(
        "kapture_r2d2_view",
        DESCRIPTION,
        "kapture_r2d2_view a.jpg b.jpg --output-dir pictures",
    )
    parser.add_argument(
        "images",
        nargs="*",
        type=str,
        help="two image files to match; or image files, folders, glob patterns, or "
        ".txt files with one path a line, whose keypoints to draw",
    )
    parser.add_argument(
        "--output-dir",
        type=Path | None,
        help="folder of the pictures; beside the (first) image by default",
    )
    parser.add_argument(
        "--keypoints",
        action="store_true",
        help="draw the keypoints of two images, do not match them",
    )
    parser.add_argument(
        "--max-keypoints", type=int, default=1000, help="keypoints drawn, the best"
    )
    add_settings(parser, ViewConfig)
    add_settings(parser, MatchConfig, _others(MatchConfig, MATCH_FLAGS))
    add_settings(parser, VerifyConfig, _others(VerifyConfig, VERIFY_FLAGS))
    add_exclude_flag(parser)
    add_masks_flag(parser)
    add_extraction_flags(parser, OWN_FLAGS)
    return parser


def _others(settings: type, used: Sequence[str]) -> list[str]:
    return [name for name in names_of(settings) if name not in used]


def _two_files(patterns: Sequence[str]) -> tuple[Path, Path] | None:
    """The files of two arguments that are no folders, patterns or lists."""
    paths = [Path(pattern) for pattern in patterns]
    if len(paths) != 2 or not all(map(_is_plain, patterns, paths)):
        return None
    return paths[0], paths[1]


def _is_plain(text: str, path: Path) -> bool:
    literal = glob.escape(text) == text or path.is_file()
    return literal and not path.is_dir() and path.suffix.lower() != ".txt"


def _two_images(namespace: Namespace, images: tuple[Path, Path]) -> Report:
    config = settings_from(namespace, ViewConfig)
    extraction = extract_config(namespace, OWN_FLAGS)
    matching = MatchConfig(**{name: namespace[name] for name in MATCH_FLAGS})
    verification = VerifyConfig(**{name: namespace[name] for name in VERIFY_FLAGS})
    checkpoint = chosen_checkpoint(namespace, OWN_FLAGS)
    from r2d2_kapture.stages import view

    return view.run(
        config,
        extraction,
        matching,
        verification,
        images=images,
        checkpoint=checkpoint,
        output_dir=namespace.output_dir,
    )


def _keypoints(namespace: Namespace) -> Report:
    config = extract_config(namespace, OWN_FLAGS)
    found = find_images(namespace.images, namespace.exclude, namespace.masks)
    checkpoint = chosen_checkpoint(namespace, OWN_FLAGS)
    from r2d2_kapture.stages.extract import view

    return view.run(
        config,
        images=found.paths,
        checkpoint=checkpoint,
        output_dir=namespace.output_dir,
        max_keypoints=namespace.max_keypoints,
        masks=namespace.masks,
        notes=found.warnings,
    )


if __name__ == "__main__":
    raise SystemExit(main())
