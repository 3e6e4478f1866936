"""kapture_r2d2_map: a map, with poses if they are unknown, from a database."""

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
from r2d2_kapture.cli.stage_flags import add_run_flags, add_type_flags, run_options
from r2d2_kapture.config.map import MapConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_map",
        "Reconstruct a map from a COLMAP 4 database with verified matches: triangulate "
        "points with fixed poses of the dataset, or estimate poses and points by "
        "incremental or global mapping. Writes a COLMAP model (sparse), a kapture "
        "dataset with points3d and observations (kapture), map.png, map.ply and "
        "report.json.",
        "kapture_r2d2_map --mapping mapping --database map.db --output map",
    )
    parser.group("inputs").add_argument(
        "--mapping",
        type=Path,
        metavar="DIR",
        required=True,
        help="kapture dataset of the images, with or without poses",
    )
    parser.group("inputs").add_argument(
        "--database",
        type=Path,
        metavar="FILE",
        required=True,
        help="COLMAP database by kapture_r2d2_verify; read only",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of the map; it appears when complete",
    )
    parser.group("inputs").add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        nargs="+",
        default=[],
        help="folders of the keypoints that the database was made from; by default "
        "those in --mapping, else x and y of the database",
    )
    add_type_flags(parser, "keypoints")
    add_settings(parser, MapConfig, group="mapping")
    add_run_flags(parser)
    namespace = parser.parse_args(resolve_presets(arguments))
    config = settings_from(namespace, MapConfig)
    options = run_options(namespace)
    from r2d2_kapture.stages import map

    report = map.run(
        config,
        mapping=namespace.mapping,
        database=namespace.database,
        output=namespace.output,
        features=namespace.features,
        keypoints_type=namespace.keypoints_type,
        options=options,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
