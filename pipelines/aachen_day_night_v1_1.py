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

from pathlib import Path

from jsonargparse import Namespace

from r2d2_kapture.cli.parser import INPUTS, CommandParser
from r2d2_kapture.cli.pipeline import Recipe, add_folder, run_pipeline
from r2d2_kapture.config.extract import AUTO, DEFAULT_MODEL

CONDITIONS = ("day", "night")


def aachen(flags: Namespace) -> int:
    """Map Aachen Day-Night v1.1 and localize its day and night queries."""
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
    add_folder("--dataset", "folder of the installed dataset")(parser)
    parser.group(INPUTS).add_argument(
        "--global-features",
        type=Path | None,
        metavar="DIR",
        help="folder of their type",
    )


main = Recipe(
    name="aachen_day_night_v1_1",
    flow=aachen,
    example="python -m r2d2_kapture.pipelines.aachen_day_night_v1_1 --output work "
    "--dataset datasets/Aachen-Day-Night-v1.1 --model r2d2_WASF_N8_big.pt",
    preset="aachen_day_night_v1_1",
    add_inputs=_add_inputs,
)

if __name__ == "__main__":
    raise SystemExit(main())
