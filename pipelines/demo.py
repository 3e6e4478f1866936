"""The whole pipeline on a small scene that we render ourselves, with known poses.

    python pipelines/demo.py --output demo

Writes two kapture datasets (mapping and query), extracts features from both, checks
them by kapture's own reader, and draws what was found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from r2d2_kapture.cli.common import EXIT_OK, EXIT_SOME_FAILED, run_command
from r2d2_kapture.config.extract import ExtractConfig, SelectionConfig
from r2d2_kapture.core.engine import resolve_runtime
from r2d2_kapture.extractors.r2d2 import R2D2Extractor
from r2d2_kapture.io.atomic import write_bytes_atomic
from r2d2_kapture.io.feature_table import open_local_features
from r2d2_kapture.io.images import read_rgb
from r2d2_kapture.io.kapture import open_dataset
from r2d2_kapture.models.checkpoints import (
    Checkpoint,
    bundled_models,
    load_checkpoint,
    serialize_checkpoint,
)
from r2d2_kapture.models.registry import Architecture, build_network
from r2d2_kapture.pictures.features import draw_heatmaps, draw_keypoints, draw_overview
from r2d2_kapture.stages import extract
from r2d2_kapture.synthetic.dataset import write_room_dataset

PUBLISHED = Path("shared/data/weights/faster2d2_WASF_N16.pt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(demo, arguments)


def demo(arguments: list[str]) -> int:
    """Render, extract, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--model", help="checkpoint; by default the best one at hand")
    options = parser.parse_args(arguments)
    output: Path = options.output

    print(f"1. rendering a room into {output}/mapping and {output}/query")
    room = write_room_dataset(output)
    checkpoint, config = choose_model(options.model, output)

    print(f"2. extracting {checkpoint.name} features")
    reports = []
    for root in (room.mapping, room.query):
        reports.append(extract.run(config, kapture_root=root, checkpoint=checkpoint))
        print(reports[-1].to_text())

    print("3. drawing")
    pictures = draw(room.mapping, checkpoint, config, output)
    for path in pictures:
        print(f"  look at {path}")
    return EXIT_SOME_FAILED if any(report.failed for report in reports) else EXIT_OK


def choose_model(model: str | None, output: Path) -> tuple[Checkpoint, ExtractConfig]:
    """The model asked for, a bundled one, the published one, or an untrained one."""
    if model is not None:
        return load_checkpoint(model), ExtractConfig()
    if bundled_models():
        return load_checkpoint(next(iter(bundled_models()))), ExtractConfig()
    published = Path(__file__).resolve().parents[2] / PUBLISHED
    if published.is_file():
        print(f"   no weights of our own are bundled yet: using {published}")
        return load_checkpoint(published), ExtractConfig()
    print(
        f"   no weights are bundled and {published} is absent: an UNTRAINED network "
        "shows the plumbing, its features are of no use; pass --model PATH instead"
    )
    return untrained(output), ExtractConfig(
        selection=SelectionConfig(reliability_thr=0, repeatability_thr=0)
    )


def untrained(output: Path) -> Checkpoint:
    """Write and load a checkpoint of a network that has learned nothing."""
    torch.manual_seed(0)
    architecture = Architecture(name="fast_r2d2")
    path = output / "untrained_fast_r2d2.safetensors"
    data = serialize_checkpoint(
        build_network(architecture),
        architecture,
        training={"steps": 0},
        license_name="Apache-2.0",
    )
    write_bytes_atomic(path, data)
    return load_checkpoint(path)


def draw(
    root: Path, checkpoint: Checkpoint, config: ExtractConfig, output: Path
) -> list[Path]:
    """Pictures of the features as kapture reads them back, and of the maps."""
    extractor = R2D2Extractor(
        checkpoint.network,
        config.pyramid,
        config.selection,
        resolve_runtime(config.engine),
    )
    dataset = open_dataset(root)
    names = dataset.image_names
    tables = open_local_features([root], checkpoint.name)
    images = {name: read_rgb(dataset.image_path(name)) for name in names}
    panels = [
        (name, image, tables.read(name, (image.shape[1], image.shape[0])))
        for name, image in images.items()
    ]
    first = images[names[0]]
    paths = [output / f"{name}.png" for name in ("overview", "keypoints", "maps")]
    draw_overview(panels, paths[0])
    draw_keypoints(first, extractor(first), paths[1], title=names[0])
    draw_heatmaps(first, extractor.confidence_maps(first), paths[2])
    return paths


if __name__ == "__main__":
    raise SystemExit(main())
