"""kapture_r2d2_match: matches of image pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    resolve_presets,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.stage_flags import add_stage_flags, add_type_flags, stage_options
from r2d2_kapture.config.match import MatchConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_match",
        "Match local features of image pairs, by mutual nearest neighbours or another "
        "--matcher, into kapture matches with scores. Run it again to resume.",
        "kapture_r2d2_match --features mapping query --pairs pairs.txt --output work",
    )
    parser.group("inputs").add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        nargs="+",
        required=True,
        help="kapture datasets, or folders of local features by kapture_r2d2_extract "
        "such as local_features/r2d2_500; for each image, the first that has its "
        "features is used",
    )
    parser.group("inputs").add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        required=True,
        help="list of pairs by kapture_r2d2_pairs, 'name, name, score' (kapture) or "
        "'name name' (hloc, COLMAP)",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for reconstruction/matches/<keypoints type>",
    )
    add_type_flags(parser, "keypoints", "descriptors")
    add_settings(parser, MatchConfig, group="matching")
    add_stage_flags(parser, "pair")
    namespace = parser.parse_args(resolve_presets(arguments))
    config = settings_from(namespace, MatchConfig)
    options = stage_options(namespace)
    from r2d2_kapture.stages import match

    report = match.run(
        config,
        features=namespace.features,
        pairs=namespace.pairs,
        output=namespace.output,
        keypoints_type=namespace.keypoints_type,
        descriptors_type=namespace.descriptors_type,
        options=options,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
