"""kapture_r2d2_pairs: lists of image pairs to match."""

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
from r2d2_kapture.config.pairs import PairsConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_pairs",
        "Choose image pairs to match: all, neighbours in time or space, images that "
        "observe the same points of a map, or similar images by existing global "
        "features or ones aggregated from local features. Without --query, mapping "
        "images are paired with each other; with it, queries with mapping images.",
        "kapture_r2d2_pairs --mapping mapping --query query --features AP-GeM-LM18 "
        "--method global --top-k 5 --output pairs_query.txt",
    )
    parser.group("inputs").add_argument(
        "--mapping",
        type=Path,
        metavar="DIR",
        required=True,
        help="kapture dataset of the map's images",
    )
    parser.group("inputs").add_argument(
        "--query",
        type=Path | None,
        metavar="DIR",
        help="kapture dataset of query images, paired with mapping images only",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        required=True,
        help="list of pairs, in kapture's format",
    )
    parser.group("inputs").add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        nargs="*",
        default=[],
        help="folders of local or global features in addition to those in the "
        "datasets, such as global_features/AP-GeM-LM18",
    )
    parser.group("inputs").add_argument(
        "--map",
        type=Path | None,
        metavar="DIR",
        help="for covisibility: a COLMAP model, a kapture dataset with points3d and "
        "observations, or an output of kapture_r2d2_map",
    )
    parser.group("inputs").add_argument(
        "--merge",
        type=Path,
        metavar="FILE",
        nargs="*",
        default=[],
        help="lists of pairs to add; of duplicates the first is kept; --method merge "
        "keeps all pairs unless --top-k limits them per image",
    )
    add_type_flags(parser, "keypoints", "descriptors", "global-features")
    parser.group("outputs").add_argument(
        "--global-features-output",
        type=Path | None,
        metavar="DIR",
        help="kapture folder for the global features that --method local computes, to "
        "share between lists; by default <output>_features next to the list",
    )
    add_settings(parser, PairsConfig, group="choice of pairs")
    add_stage_flags(parser, "image")
    namespace = parser.parse_args(resolve_presets(arguments))
    config = settings_from(namespace, PairsConfig)
    options = stage_options(namespace)
    from r2d2_kapture.stages import pairs

    report = pairs.run(
        config,
        mapping=namespace.mapping,
        query=namespace.query,
        output=namespace.output,
        features=namespace.features,
        map_path=namespace.map,
        merge=namespace.merge,
        keypoints_type=namespace.keypoints_type,
        descriptors_type=namespace.descriptors_type,
        global_features_type=namespace.global_features_type,
        global_features_output=namespace.global_features_output,
        options=options,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
