"""Virtual Gallery: a map of 12 images with known poses, and 4 queries localized in it.

    python pipelines/virtual_gallery.py --dataset virtual_gallery --output work

takes the authors' features (r2d2_500) and global features (AP-GeM). With
``--model r2d2_WASF_N16.pt`` the local features are ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import finish, run_command
from r2d2_kapture.cli.pipeline import print_report, read_preset
from r2d2_kapture.cli.repeated_flags import join_repeated_flags
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import pipeline

PRESET = "virtual_gallery"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(virtual_gallery, arguments)


def virtual_gallery(arguments: list[str]) -> int:
    """Features, pairs, matches, verification, map, localization, evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", help="extract by this checkpoint")
    options = parser.parse_args(join_repeated_flags(parser, arguments))

    dataset: Path = options.dataset
    checkpoint = load_checkpoint(options.model) if options.model else None
    local_features = [] if options.model else [dataset / "local_features" / "r2d2_500"]
    global_features = [dataset / "global_features" / "AP-GeM-LM18"]
    report = pipeline.run(
        read_preset(PRESET, checkpoint),
        mapping=dataset / "mapping",
        queries={"query": dataset / "query"},
        features=local_features + global_features,
        checkpoint=checkpoint,
        output=options.output,
        announce=print_report,
    )
    return finish(report)


if __name__ == "__main__":
    raise SystemExit(main())
