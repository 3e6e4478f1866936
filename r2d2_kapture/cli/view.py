"""kapture_r2d2_view: pictures of two matched images, or of keypoints."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.door_flags import chosen_settings
from r2d2_kapture.cli.extraction_flags import (
    add_extraction_flags,
    add_folder_flags,
    add_rotations_flag,
    make_extractor,
    parse_extraction,
)
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import add_parameters, parameter_values
from r2d2_kapture.config.match import MATCHERS, MatchConfig
from r2d2_kapture.config.rotations import OFF
from r2d2_kapture.config.settings import names_of
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.config.view import ViewConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.images.search import find_images
from r2d2_kapture.types import Report

OWN_FLAGS = ("max_keypoints",)
"""Flags with the name of a setting of D2-Net, but another meaning."""
MATCH_FLAGS = ("matcher",)
VERIFY_FLAGS = ("max_error", "min_inliers", "max_trials", "seed")
"""Settings used only for two image files."""
STAGE = "r2d2_kapture.stages.view"
STORED = {
    "map": "run_map",
    "database": "run_database",
    "features": "run_features",
    "kapture_root": "run_features",
}
"""Functions of the stage by the flags of stored data to draw."""
PAIR_FLAGS = ("pair", "image", "matches", "images")
"""Flags that select a part of the stored data."""

DESCRIPTION = """Draw two images and their matches, or the keypoints of images.

Two image files are extracted, matched and verified: A-B.matches.png has lines between
matches, inliers green and outliers faint red; A-B.overlay.png is A warped onto B, if
their geometry is a homography; A-B.matches.json has the numbers. The same for stored
data: --database, --features or --kapture-root, with --pair A B; --map draws an image of
a map with the keypoints that observe map points, and its matches with the images that
share most of them. With --keypoints, and for any other number of image files:
IMAGE.keypoints.png (circle size: patch, colour: score) and IMAGE.maps.png (reliability
and repeatability, or soft detection) of every image."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = _parser()
    namespace = parse_extraction(parser, arguments)
    stored = [flag for flag in STORED if namespace[flag]]
    if stored:
        _refuse_unused(namespace, stored)
        return finish(_stored(namespace, stored[0]))
    if not namespace.photographs:
        raise ConfigError(
            "no image given, expected files, folders or patterns; or one of "
            + _flags(STORED)
        )
    _refuse_flags(namespace, PAIR_FLAGS, f"one of {_flags(STORED)}")
    pair = _two_files(namespace.photographs)
    if pair is None or namespace.keypoints:
        return finish(_keypoints(namespace))
    _refuse_flags(namespace, ("masks", "exclude"), "--keypoints, folders or patterns")
    return finish(_two_images(namespace, pair))


def _parser() -> CommandParser:
    parser = make_parser(
        "kapture_r2d2_view",
        DESCRIPTION,
        "kapture_r2d2_view a.jpg b.jpg --output-dir pictures",
    )
    parser.group("inputs").add_argument(
        "photographs",
        nargs="*",
        type=str,
        metavar="PATH",
        help="two image files to match; or image files, folders, glob patterns, or "
        ".txt files with one path per line, whose keypoints to draw",
    )
    parser.group("outputs").add_argument(
        "--output-dir",
        type=Path | None,
        metavar="DIR",
        help="folder of the pictures; by default next to the (first) image file, and "
        "the current folder for stored data",
    )
    for function in dict.fromkeys(STORED.values()):
        _, parameters = read_signature(STAGE, function)
        known = [action.dest for action in parser._actions]
        add_parameters(parser, parameters, taken=known, in_files=True)
    parser.group("inputs").add_argument(
        "--pair", type=str, nargs=2, metavar=("A", "B"), help="names of two images"
    )
    parser.group("pictures").add_argument(
        "--keypoints",
        action="store_true",
        help="draw the keypoints of two images instead of matching them",
    )
    parser.group("pictures").add_argument(
        "--max-keypoints",
        type=int,
        metavar="N",
        default=1000,
        help="number of keypoints drawn, best scores first",
    )
    add_settings(parser, ViewConfig, group="pictures")
    add_settings(
        parser, MatchConfig, _others(MatchConfig, MATCH_FLAGS), group="matching"
    )
    add_settings(
        parser, VerifyConfig, _others(VerifyConfig, VERIFY_FLAGS), group="verification"
    )
    add_folder_flags(parser)
    add_extraction_flags(parser, OWN_FLAGS)
    add_rotations_flag(parser, "the first")
    return parser


def _refuse_unused(namespace: Namespace, stored: Sequence[str]) -> None:
    """Refuse flags that exclude each other."""
    if namespace.photographs:
        raise ConfigError(
            f"{_flags(stored)}: found image files too, expected no files; name images "
            "with --pair or --image"
        )
    _refuse_flags(namespace, ("masks", "exclude", "keypoints"), "image files")
    if len(stored) > 1 and stored != ["features", "kapture_root"]:
        raise ConfigError(f"{_flags(stored)}: found together, expected one of them")
    if stored[0] == "map":
        _refuse_flags(namespace, ("pair", "matches"), "no --map")
    else:
        _refuse_flags(namespace, ("image",), "--map")
        if not namespace.pair:
            raise ConfigError(f"{_flags(stored)}: expected --pair A B, two image names")
    if stored[0] == "database":
        _refuse_flags(namespace, ("matches",), "--features or --kapture-root")


def _refuse_flags(namespace: Namespace, names: Sequence[str], needed: str) -> None:
    given = [name for name in names if namespace[name]]
    if given:
        raise ConfigError(f"{_flags(given)}: expected only with {needed}")


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _stored(namespace: Namespace, source: str) -> Report:
    _refuse_rotations(namespace)
    function = STORED[source]
    _, parameters = read_signature(STAGE, function)
    values = parameter_values(namespace, parameters)
    values["output_dir"] = namespace.output_dir or Path()
    if source != "map":
        values["pair"] = tuple(namespace.pair)
    configs = _configs(namespace) if function == "run_features" else ()
    from r2d2_kapture.stages import view

    report: Report = getattr(view, function)(*configs, **values)
    return report


def _configs(namespace: Namespace) -> tuple[ViewConfig, MatchConfig, VerifyConfig]:
    return (
        settings_from(namespace, ViewConfig),
        MatchConfig(matcher=chosen_settings(namespace, MATCHERS)),
        VerifyConfig(**{name: namespace[name] for name in VERIFY_FLAGS}),
    )


def _others(settings: type, used: Sequence[str]) -> list[str]:
    return [name for name in names_of(settings) if name not in used]


def _two_files(patterns: Sequence[str]) -> tuple[Path, Path] | None:
    """The two image files, if the arguments are not folders, patterns or lists."""
    paths = [Path(pattern) for pattern in patterns]
    if len(paths) != 2 or not all(map(_is_plain, patterns, paths)):
        return None
    return paths[0], paths[1]


def _is_plain(text: str, path: Path) -> bool:
    literal = glob.escape(text) == text or path.is_file()
    return literal and not path.is_dir() and path.suffix.lower() != ".txt"


def _two_images(namespace: Namespace, images: tuple[Path, Path]) -> Report:
    config, matching, verification = _configs(namespace)
    extractor = make_extractor(namespace, OWN_FLAGS)
    from r2d2_kapture.stages import view

    return view.run(
        config,
        extractor,
        matching,
        verification,
        images=images,
        output_dir=namespace.output_dir,
        rotations=namespace.rotations,
    )


def _refuse_rotations(namespace: Namespace) -> None:
    if namespace.rotations != OFF.text:
        raise ConfigError(
            f"--rotations {namespace.rotations}: expected only with two image files to "
            "match"
        )


def _keypoints(namespace: Namespace) -> Report:
    _refuse_rotations(namespace)
    found = find_images(namespace.photographs, namespace.exclude, namespace.masks)
    extractor = make_extractor(namespace, OWN_FLAGS)
    from r2d2_kapture.stages.extract import view

    return view.run(
        extractor,
        images=found.paths,
        output_dir=namespace.output_dir,
        max_keypoints=namespace.max_keypoints,
        masks=namespace.masks,
        notes=found.warnings,
    )


if __name__ == "__main__":
    raise SystemExit(main())
