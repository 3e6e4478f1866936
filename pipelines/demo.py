"""The whole pipeline on a small scene that we render ourselves, with known poses.

    python pipelines/demo.py --output demo

Writes two kapture datasets (mapping and query), extracts features from both, builds a
map of one, localizes the other in it, compares with the true poses, and draws all that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from r2d2_kapture.cli.common import EXIT_OK, finish, run_command
from r2d2_kapture.cli.pipeline import print_report, read_preset
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.extractors.registry import AUTO, build_extractor
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
from r2d2_kapture.stages import pipeline
from r2d2_kapture.synthetic.dataset import write_room_dataset

PRESET = "demo"
UNTRAINED = {"steps": 0}
PUBLISHED = Path("shared/data/weights/faster2d2_WASF_N16.pt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(demo, arguments)


def demo(arguments: list[str]) -> int:
    """Render, map, localize, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--model", help="checkpoint; by default the best one at hand")
    options = parser.parse_args(arguments)
    output: Path = options.output

    print(f"1. rendering a room into {output}/mapping and {output}/query")
    room = write_room_dataset(output)
    checkpoint, config = choose_model(options.model, output)

    print(f"2. from images to poses with {checkpoint.name}")
    try:
        report = pipeline.run(
            config,
            mapping=room.mapping,
            queries={"query": room.query},
            output=output / "work",
            checkpoint=checkpoint,
            announce=print_report,
        )
    except ReconstructionError as error:
        if not is_untrained(checkpoint):
            raise
        print(f"   no map, as was to be expected of an untrained network: {error}")
        return EXIT_OK

    print("3. drawing")
    layout = pipeline.Layout(output=output / "work")
    pictures = draw(room.mapping, layout.features, checkpoint, config.extract, output)
    pictures += sorted(layout.evaluated("query").glob("*.png"))
    for path in pictures:
        print(f"  look at {path}")
    return finish(report)


def choose_model(model: str | None, output: Path) -> tuple[Checkpoint, PipelineConfig]:
    """The model asked for, a bundled one, the published one, or an untrained one."""
    config = read_preset(PRESET)
    if model is not None:
        return load_checkpoint(model), config
    if bundled_models():
        return load_checkpoint(next(iter(bundled_models()))), config
    published = Path(__file__).resolve().parents[2] / PUBLISHED
    if published.is_file():
        print(f"   no weights of our own are bundled yet: using {published}")
        return load_checkpoint(published), config
    print(
        f"   no weights are bundled and {published} is absent: an UNTRAINED network "
        "shows the plumbing, its features are of no use; pass --model PATH instead"
    )
    selection = dataclasses.replace(
        config.extract.selection, reliability_thr=0, repeatability_thr=0
    )
    extract = dataclasses.replace(config.extract, selection=selection)
    return untrained(output), dataclasses.replace(config, extract=extract)


def untrained(output: Path) -> Checkpoint:
    """Write and load a checkpoint of a network that has learned nothing."""
    torch.manual_seed(0)
    architecture = Architecture(name="fast_r2d2")
    path = output / "untrained_fast_r2d2.safetensors"
    data = serialize_checkpoint(
        build_network(architecture),
        architecture,
        training=UNTRAINED,
        license_name="Apache-2.0",
    )
    write_bytes_atomic(path, data)
    return load_checkpoint(path)


def is_untrained(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is the one that ``untrained`` makes."""
    return checkpoint.metadata.get("training") == json.dumps(UNTRAINED)


def draw(
    root: Path,
    features: Path,
    checkpoint: Checkpoint,
    config: ExtractConfig,
    output: Path,
) -> list[Path]:
    """Pictures of the features as kapture reads them back, and of the maps."""
    extractor = build_extractor(AUTO, checkpoint.network, config)
    dataset = open_dataset(root)
    names = dataset.image_names
    tables = open_local_features([features], checkpoint.name)
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
