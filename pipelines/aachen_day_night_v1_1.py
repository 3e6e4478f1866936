r"""Aachen Day-Night v1.1: a map with known poses; day and night queries apart.

    kapture_download_dataset --install_path datasets update
    kapture_download_dataset --install_path datasets install "Aachen-Day-Night-v1.1*"
    python -m r2d2_kapture.pipelines.aachen_day_night_v1_1 --output work \
        --dataset datasets/Aachen-Day-Night-v1.1 --model r2d2_WASF_N8_big.pt

``--global-features`` names a folder of global features, such as AP-GeM-LM18; without it
retrieval uses a descriptor aggregated from the local features. The poses of both
conditions go to ``work/submission.txt``, in the format of visuallocalization.net. It
takes all other flags of kapture_r2d2_pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import run_command
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.pipeline import parse_pipeline, pipeline_parser, run_pipeline
from r2d2_kapture.config.extract import AUTO, DEFAULT_MODEL

PRESET = "aachen_day_night_v1_1"
CONDITIONS = ("day", "night")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(aachen, arguments)


def aachen(arguments: list[str]) -> int:
    """Features, pairs, matches, verification, map, localization, submission."""
    parser = pipeline_parser(
        "aachen_day_night_v1_1",
        "Map Aachen Day-Night v1.1 and localize its day and night queries.",
        "python -m r2d2_kapture.pipelines.aachen_day_night_v1_1 --output work "
        "--dataset datasets/Aachen-Day-Night-v1.1 --model r2d2_WASF_N8_big.pt",
        inputs=_add_inputs,
    )
    flags = parse_pipeline(parser, ["--config", PRESET, *arguments])
    if flags.extractor == AUTO:
        flags.model = flags.model or DEFAULT_MODEL
    if flags.global_features is not None:
        flags.features.append(flags.global_features)
        flags.query_pairs.method = "global"
    return run_pipeline(
        flags,
        mapping=flags.dataset / "mapping",
        queries={name: flags.dataset / f"query_{name}" for name in CONDITIONS},
    )


def _add_inputs(parser: CommandParser) -> None:
    parser.group("inputs").add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of the installed dataset",
    )
    parser.group("inputs").add_argument(
        "--global-features",
        type=Path | None,
        metavar="DIR",
        help="folder of their type",
    )


if __name__ == "__main__":
    raise SystemExit(main())
