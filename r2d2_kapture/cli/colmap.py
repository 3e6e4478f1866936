"""kapture_r2d2_colmap: from a folder of images to a COLMAP database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from r2d2_kapture.cli.common import (
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
)
from r2d2_kapture.cli.extraction_flags import (
    FOLDER_FLAGS,
    add_extraction_flags,
    add_extraction_run_flags,
    add_folder_flags,
    extraction,
    parse_extraction,
)
from r2d2_kapture.cli.signatures import read_signature
from r2d2_kapture.cli.stage_flags import (
    add_parameters,
    add_refinement,
    parameter_values,
    require_given,
    run_options,
)
from r2d2_kapture.config.colmap import ColmapConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import RefineOnceConfig
from r2d2_kapture.config.verify import VerifyConfig

SECTIONS: dict[str, type] = {
    "pairing": PairsConfig,
    "match": MatchConfig,
    "verify": VerifyConfig,
    "refine": RefineOnceConfig,
    "map": MapConfig,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    description, parameters = read_signature("r2d2_kapture.stages.colmap")
    parser = make_parser(
        "kapture_r2d2_colmap",
        description,
        "kapture_r2d2_colmap --images photos --database photos.db --sparse sparse",
    )
    groups = {"outputs": ["database", "sparse"]}
    add_parameters(parser, parameters, groups, taken=FOLDER_FLAGS, in_files=True)
    add_folder_flags(parser)
    add_extraction_flags(parser)
    add_settings(parser, FolderConfig, group="cameras and pairs")
    for name, settings in SECTIONS.items():
        if settings is RefineOnceConfig:
            add_refinement(parser, settings)
        else:
            add_settings(parser, settings, section=f"{name}.", group=name, topic=name)
    add_extraction_run_flags(parser)
    namespace = parse_extraction(parser, arguments)
    require_given(namespace, parameters)
    sections: dict[str, Any] = {
        name: settings_from(namespace[name], settings, f"{name}.")
        for name, settings in SECTIONS.items()
    }
    extract, weights = extraction(
        namespace, namespace.model, namespace.extractor, preset=namespace.preset
    )
    config = ColmapConfig(
        folder=settings_from(namespace, FolderConfig),
        extract=extract,
        **sections,
    )
    options = run_options(namespace)
    from r2d2_kapture.stages import colmap
    from r2d2_kapture.stages.report import run as write_page
    from r2d2_kapture.stages.report import with_page

    report = colmap.run(
        config,
        weights=weights,
        **parameter_values(namespace, parameters),
        options=options,
    )
    if namespace.sparse is not None:
        page = partial(write_page, map=namespace.sparse, images=namespace.images)
        report = with_page(report, page)
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
