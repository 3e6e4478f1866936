"""The whole pipeline on a small rendered scene with known poses.

    python -m r2d2_kapture.pipelines.demo --output demo

Writes two kapture datasets (mapping and query), extracts features from both, builds a
map of one, localizes the other in it, compares with the true poses, draws all that, and
shows it on one page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from r2d2_kapture.cli.common import show
from r2d2_kapture.cli.extraction_flags import extraction
from r2d2_kapture.cli.pipeline import Recipe, run_pipeline

if TYPE_CHECKING:
    from r2d2_kapture.core.extraction import Extractor


def demo(flags: Namespace) -> int:
    """The whole pipeline on a small scene that is rendered with known poses."""
    output: Path = flags.output
    chosen = flags["extract"], flags.model, flags.extractor
    config, weights = extraction(*chosen, section="extract.")
    from r2d2_kapture.extractors.registry import build_extractor
    from r2d2_kapture.stages.pipeline_layout import Layout
    from r2d2_kapture.stages.report import PAGE_NAME
    from r2d2_kapture.synthetic.dataset import write_room_dataset

    extractor = build_extractor(config, weights)
    show(f"1. rendering a room into {output}/mapping and {output}/query")
    room = write_room_dataset(output)
    show(f"2. from images to poses with {extractor.label}")
    flags.output = output / "work"
    code = run_pipeline(flags, mapping=room.mapping, queries={"query": room.query})
    show("3. drawing")
    layout = Layout(output=flags.output)
    pictures = draw(room.mapping, layout.features, extractor, output)
    pictures += [layout.map / "map.png", *layout.evaluated("query").glob("*.png")]
    show("\n".join(f"  look at {path}" for path in pictures))
    show(f"4. all of it on one page, for a browser: {flags.output / PAGE_NAME}")
    return code


def draw(root: Path, features: Path, extractor: Extractor, output: Path) -> list[Path]:
    """Pictures of the features as kapture reads them back, and of the maps."""
    from r2d2_kapture.io.images.decoding import read_rgb
    from r2d2_kapture.io.kapture.dataset import open_dataset
    from r2d2_kapture.io.kapture.local_features import open_local_features
    from r2d2_kapture.pictures.features import (
        draw_heatmaps,
        draw_keypoints,
        draw_overview,
    )

    dataset = open_dataset(root)
    names = dataset.image_names
    tables = open_local_features([features], extractor.label)
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


main = Recipe(
    name="demo",
    flow=demo,
    example="python -m r2d2_kapture.pipelines.demo --output demo",
    preset="demo",
    defaults={"output": Path("demo")},
)

if __name__ == "__main__":
    raise SystemExit(main())
