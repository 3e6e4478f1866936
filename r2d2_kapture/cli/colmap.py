"""kapture_r2d2_colmap: from a folder of images to a COLMAP database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
    add_run_flags,
    extraction,
    parse_extraction,
    run_options,
)
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError

SECTIONS: dict[str, type] = {
    "pairing": PairsConfig,
    "match": MatchConfig,
    "verify": VerifyConfig,
    "map": MapConfig,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = make_parser(
        "kapture_r2d2_colmap",
        "Put keypoints, of R2D2 by default, matches and verified two-view geometries "
        "of a folder of images into a new or existing COLMAP 4 database, and "
        "optionally reconstruct sparse models. Run it again to resume.",
        "kapture_r2d2_colmap --images photos --database photos.db --sparse sparse",
    )
    _add_inputs(parser)
    add_exclude_flag(parser)
    add_masks_flag(parser)
    add_extraction_flags(parser)
    add_settings(parser, FolderConfig, group="cameras and pairs")
    for name, settings in SECTIONS.items():
        add_settings(parser, settings, section=f"{name}.", group=name, topic=name)
    add_run_flags(parser)
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    for name in ("images", "database"):
        if namespace[name] is None:
            raise ConfigError(f"--{name}: missing, see --help")
    sections: dict[str, Any] = {
        name: settings_from(namespace[name], settings, f"{name}.")
        for name, settings in SECTIONS.items()
    }
    extract, weights = extraction(namespace, namespace.model, namespace.extractor)
    config = ColmapConfig(
        folder=settings_from(namespace, FolderConfig),
        extract=extract,
        **sections,
    )
    options = run_options(namespace)
    from r2d2_kapture.stages import colmap
    from r2d2_kapture.stages.report import report_map, with_page

    report = colmap.run(
        config,
        images=namespace.images,
        database=namespace.database,
        weights=weights,
        sparse=namespace.sparse,
        pairs_list=namespace.pairs,
        exclude=namespace.exclude,
        masks=namespace.masks,
        options=options,
    )
    if namespace.sparse is not None:
        page = partial(report_map, namespace.sparse, images=namespace.images)
        report = with_page(report, page)
    return finish(report)


def _add_inputs(parser: CommandParser) -> None:
    parser.group("inputs").add_argument(
        "--images",
        type=Path | None,
        metavar="DIR",
        help="folder of images, searched recursively",
    )
    parser.group("outputs").add_argument(
        "--database",
        type=Path | None,
        metavar="FILE",
        help="COLMAP database; images of an existing one are found by name, and its "
        "cameras, rigs and frames are kept; <name>_r2d2 next to it has the data to "
        "resume",
    )
    parser.group("outputs").add_argument(
        "--sparse",
        type=Path | None,
        metavar="DIR",
        help="folder for sparse models 0, 1, ..., the largest first, "
        "each with map.png and map.ply, and report.html, which shows the first in a "
        "browser",
    )
    parser.group("inputs").add_argument(
        "--pairs",
        type=Path | None,
        metavar="FILE",
        help="list of pairs to match, 'name, name, score' (kapture) or 'name name' "
        "(COLMAP) per line; by default chosen by --pairing",
    )


if __name__ == "__main__":
    raise SystemExit(main())
