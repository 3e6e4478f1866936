"""kapture_r2d2_localize: camera poses of queries in a map."""

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
from r2d2_kapture.config.localize import LocalizeConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_localize",
        "Estimate the camera poses of query images in a map, from their matches with "
        "map images. Run it again to resume.",
        "kapture_r2d2_localize --map MAP --query query --pairs pairs_query.txt "
        "--features mapping query --matches MATCHES --output LOCALIZED",
    )
    parser.group("inputs").add_argument(
        "--map",
        type=Path,
        metavar="DIR",
        required=True,
        help="output of kapture_r2d2_map, another COLMAP model, or a kapture dataset "
        "with points3d and observations",
    )
    parser.group("inputs").add_argument(
        "--query",
        type=Path,
        metavar="DIR",
        required=True,
        help="kapture dataset of the queries",
    )
    parser.group("inputs").add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        required=True,
        help="list of pairs of query and map image by kapture_r2d2_pairs, 'name, name, "
        "score' (kapture) or 'name name' (hloc)",
    )
    parser.group("inputs").add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        nargs="+",
        help="kapture datasets or folders of local features by kapture_r2d2_extract; "
        "by default the query dataset",
    )
    parser.group("inputs").add_argument(
        "--matches",
        type=Path,
        metavar="DIR",
        nargs="+",
        required=True,
        help="output of kapture_r2d2_match, or kapture datasets with matches",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for a kapture dataset of the poses, poses.txt, and one JSON file "
        "per query",
    )
    add_type_flags(parser, "keypoints")
    add_settings(parser, LocalizeConfig, group="localization")
    add_stage_flags(parser, "query")
    namespace = parser.parse_args(resolve_presets(arguments))
    config = settings_from(namespace, LocalizeConfig)
    options = stage_options(namespace)
    from r2d2_kapture.stages import localize

    report = localize.run(
        config,
        map_path=namespace.map,
        query=namespace.query,
        pairs=namespace.pairs,
        features=namespace.features or [namespace.query],
        matches=namespace.matches,
        output=namespace.output,
        keypoints_type=namespace.keypoints_type,
        options=options,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
