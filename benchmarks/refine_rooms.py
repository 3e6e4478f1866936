"""Refinement in rendered rooms: maps and queries against exact truth.

    python benchmarks/refine_rooms.py --output rooms --seeds 0 1 2

Renders rooms (12 images to map, 20 to localize, 1600x1200, with blur, noise and changes
of exposure), maps them by their poses and with poses unknown, localizes the queries
with refinement off and on, and prints the distance of the map's points to the surfaces
of the room, and the errors of the queries. Of a map of unknown poses, the frame is that
of its cameras aligned to the true ones. Run again, it continues.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from refinement import (
    OFF_ON,
    Figures,
    aligned,
    bar,
    extract_all,
    localize,
    map_figures,
    pose_errors,
    pose_figures,
    positions,
    table,
    true_poses,
    write_part,
)

from r2d2_kapture.cli.common import EXIT_OK, run_command, show
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.synthetic.dataset import (
    Shot,
    mapping_shots,
    query_shots,
    write_shots,
)
from r2d2_kapture.synthetic.rendering import PinholeCamera, Rectangle, Scene
from r2d2_kapture.synthetic.room import textured_room

Array = npt.NDArray[np.float64]

NEAR = 0.01
"""Metres from the surface within which a point counts as on it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(refine_rooms, arguments)


def refine_rooms(arguments: list[str]) -> int:
    """Measure every room, print a table and the bars of each, then of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model", default="fast_r2d2_v6")
    parser.add_argument("--poses", nargs="+", default=["known", "unknown"])
    parser.add_argument("--images", type=int, nargs=2, default=(12, 20))
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200))
    options = parser.parse_args(arguments)
    extractor = build_extractor(ExtractConfig(), load_checkpoint(options.model))
    for poses in options.poses:
        everywhere: list[Figures] = [{}, {}]
        for seed in options.seeds:
            folder = options.output / f"room_{seed}"
            scene = textured_room(seed)
            write_room(folder, scene, seed, options.images, options.size)
            show(f"room {seed}, poses of the mapping images {poses}")
            compare(folder, scene, extractor, poses, everywhere)
        if len(options.seeds) > 1:
            show(f"{len(options.seeds)} rooms, poses of the mapping images {poses}")
            show("\n".join(bars(*everywhere)))
    return EXIT_OK


def write_room(
    folder: Path, scene: Scene, seed: int, images: Sequence[int], size: Sequence[int]
) -> None:
    """Render both datasets of a room, unless they exist."""
    width, height = size
    camera = PinholeCamera(image_size=(width, height), focal_length=0.75 * width)
    mapping = as_taken(mapping_shots(seed, images[0]), seed, gain=0.2)
    queries = as_taken(query_shots(seed, images[1]), seed + 1, gain=0.35)
    for name, shots, first in (("mapping", mapping, 0), ("query", queries, images[0])):
        if not (folder / name / "sensors" / "records_camera.txt").is_file():
            write_shots(folder / name, scene, camera, shots, first_timestamp=first)


def as_taken(shots: Sequence[Shot], seed: int, gain: float) -> list[Shot]:
    """Shots of one exposure, blur and noise each."""
    rng = np.random.default_rng([seed, 3])
    return [
        dataclasses.replace(
            shot,
            exposure=rng.uniform(1 - gain, 1 + gain),
            blur=rng.uniform(0.4, 1.2),
            noise=rng.uniform(2.0, 5.0),
        )
        for shot in shots
    ]


def compare(
    folder: Path,
    scene: Scene,
    extractor: Extractor,
    poses: str,
    everywhere: Sequence[Figures],
) -> None:
    """Map and localize with refinement off and on; note the positions everywhere."""
    mapping, query = folder / "mapping", folder / "query"
    extract_all(extractor, [mapping, query], folder)
    truth, true_queries = true_poses(mapping), true_poses(query)
    if poses == "unknown":
        names = open_dataset(mapping).image_names
        mapping = write_part(mapping, folder / "without_poses", names, poses=False)
    figures, errors = [], []
    for refine in OFF_ON:
        output = folder / poses / refine
        found = localize(
            mapping, query, output, shared=folder, label=extractor.label, refine=refine
        )
        if poses == "unknown":
            found = aligned(found, truth)
        points = np.array([point.xyz for point in found.model.points3D.values()])
        of_queries = pose_errors(true_queries, found.queries)
        errors.append(positions(of_queries))
        figures.append(
            map_figures(found)
            | surface_figures(scene, points)
            | pose_figures(of_queries)
            | errors[-1]
        )
    show("\n".join([*table(*figures), *bars(*errors)]))
    for all_errors, new in zip(everywhere, errors):
        all_errors |= {f"{folder.name} {name}": value for name, value in new.items()}


def bars(off: Figures, on: Figures) -> list[str]:
    """The bars of the issue on position errors by query."""
    before, after = (np.array(list(figures.values())) for figures in (off, on))
    return [
        bar(
            "median position error, on / off",
            float(np.median(after) / np.median(before)),
            at_most=0.65,
        ),
        bar("worst query, on / off", float(np.nanmax(after / before)), at_most=2.0),
    ]


def surface_figures(scene: Scene, points: Array) -> Figures:
    """How far points lie from the surfaces of a scene."""
    each = [distances(rectangle, points) for rectangle in scene.rectangles]
    nearest = np.min(each, axis=0)
    return {
        f"share within {1000 * NEAR:g} mm of the surface": float(
            (nearest <= NEAR).mean()
        ),
        "median distance to the surface, mm": 1000 * float(np.median(nearest)),
    }


def distances(rectangle: Rectangle, points: Array) -> Array:
    """(N,) distances in metres of (N, 3) points to a rectangle."""
    edges = np.column_stack([rectangle.edge_u, rectangle.edge_v])
    coordinates = (points - rectangle.origin) @ np.linalg.pinv(edges).T
    nearest = rectangle.origin + np.clip(coordinates, 0, 1) @ edges.T
    return np.asarray(np.linalg.norm(points - nearest, axis=1))


if __name__ == "__main__":
    raise SystemExit(main())
