r"""Aachen Day-Night v1.1: a map with known poses; day and night queries apart.

    kapture_download_dataset --install_path datasets update
    kapture_download_dataset --install_path datasets install "Aachen-Day-Night-v1.1*"
    python pipelines/aachen_day_night_v1_1.py --output work \
        --dataset datasets/Aachen-Day-Night-v1.1 --model r2d2_WASF_N8_big.pt

``--global-features`` names a folder of global features, such as AP-GeM-LM18; without it
retrieval uses a descriptor aggregated from the local features. The poses of both
conditions go to ``work/submission.txt``, as visuallocalization.net wants them.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import finish, run_command
from r2d2_kapture.cli.pipeline import print_report, read_preset
from r2d2_kapture.cli.repeated_flags import join_repeated_flags
from r2d2_kapture.config.extract import DEFAULT_MODEL
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import pipeline

PRESET = "aachen_day_night_v1_1"
CONDITIONS = ("day", "night")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(aachen, arguments)


def aachen(arguments: list[str]) -> int:
    """Features, pairs, matches, verification, map, localization, submission."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="checkpoint")
    parser.add_argument("--global-features", type=Path, help="folder of their type")
    options = parser.parse_args(join_repeated_flags(parser, arguments))

    checkpoint = load_checkpoint(options.model)
    config = read_preset(PRESET, checkpoint)
    features = []
    if options.global_features is not None:
        features = [options.global_features]
        by_global = dataclasses.replace(config.query_pairs, method="global")
        config = dataclasses.replace(config, query_pairs=by_global)
    report = pipeline.run(
        config,
        mapping=options.dataset / "mapping",
        queries={name: options.dataset / f"query_{name}" for name in CONDITIONS},
        features=features,
        checkpoint=checkpoint,
        output=options.output,
        announce=print_report,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
