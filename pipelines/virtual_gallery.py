"""Virtual Gallery: a map of 12 images with known poses, and 4 queries localized in it.

    python -m r2d2_kapture.pipelines.virtual_gallery --dataset folder --output work

takes the authors' features (r2d2_500) and global features (AP-GeM). With
``--model r2d2_WASF_N16.pt`` the local features are ours. It takes all other flags of
kapture_r2d2_pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.cli.common import run_command
from r2d2_kapture.cli.pipeline import parse_pipeline, pipeline_parser, run_pipeline
from r2d2_kapture.config.extract import AUTO

PRESET = "virtual_gallery"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(virtual_gallery, arguments)


def virtual_gallery(arguments: list[str]) -> int:
    """Features, pairs, matches, verification, map, localization, evaluation."""
    parser = pipeline_parser(
        "virtual_gallery",
        "Map the Virtual Gallery sample and localize its queries.",
        "python -m r2d2_kapture.pipelines.virtual_gallery --dataset virtual_gallery "
        "--output work",
        inputs=lambda parser: parser.group("inputs").add_argument(
            "--dataset",
            type=Path,
            metavar="DIR",
            required=True,
            help="folder of the sample",
        ),
    )
    flags = parse_pipeline(parser, ["--config", PRESET, *arguments])
    dataset: Path = flags.dataset
    if flags.model is None and flags.extractor == AUTO:
        flags.features.append(dataset / "local_features" / "r2d2_500")
    flags.features.append(dataset / "global_features" / "AP-GeM-LM18")
    return run_pipeline(
        flags, mapping=dataset / "mapping", queries={"query": dataset / "query"}
    )


if __name__ == "__main__":
    raise SystemExit(main())
