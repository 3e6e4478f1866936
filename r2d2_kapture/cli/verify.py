"""kapture_r2d2_verify: matches to a COLMAP database, geometrically verified."""

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
from r2d2_kapture.config.verify import VerifyConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_verify",
        "Keep the matches that agree with an estimated or known two-view geometry, and "
        "write a COLMAP 4 database with cameras, rigs, frames, images, keypoints, "
        "matches and two-view geometries. Run it again to resume.",
        "kapture_r2d2_verify --mapping mapping --features mapping --matches work "
        "--pairs pairs.txt --database map.db --output verified",
    )
    parser.group("inputs").add_argument(
        "--mapping",
        type=Path,
        metavar="DIR",
        required=True,
        help="kapture dataset of the images: cameras, rigs, records, and poses for "
        "--geometry known_poses",
    )
    parser.group("inputs").add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        nargs="+",
        required=True,
        help="kapture datasets, or folders of keypoints by kapture_r2d2_extract such "
        "as local_features/r2d2_500",
    )
    parser.group("inputs").add_argument(
        "--matches",
        type=Path,
        metavar="DIR",
        nargs="+",
        required=True,
        help="kapture datasets, or outputs of kapture_r2d2_match",
    )
    parser.group("inputs").add_argument(
        "--pairs",
        type=Path | None,
        metavar="FILE",
        help="list of pairs by kapture_r2d2_pairs, 'name, name, score' (kapture) or "
        "'name name' (hloc, COLMAP); by default all pairs with matches",
    )
    parser.group("outputs").add_argument(
        "--database",
        type=Path,
        metavar="FILE",
        required=True,
        help="COLMAP database to write; it appears when it is complete",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for the verified matches, reconstruction/matches/<keypoints "
        "type>",
    )
    add_type_flags(parser, "keypoints")
    add_settings(parser, VerifyConfig, group="verification")
    add_stage_flags(parser, "pair")
    namespace = parser.parse_args(resolve_presets(arguments))
    config = settings_from(namespace, VerifyConfig)
    options = stage_options(namespace)
    from r2d2_kapture.stages import verify

    report = verify.run(
        config,
        mapping=namespace.mapping,
        features=namespace.features,
        matches=namespace.matches,
        pairs=namespace.pairs,
        database=namespace.database,
        output=namespace.output,
        keypoints_type=namespace.keypoints_type,
        options=options,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
