"""Pictures of an image of a map: its observations, and matches with covisible
images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap, read_sparse_map
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.pictures.features import draw_observed
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.stages.view.sources import (
    file_stem,
    image_file,
    image_folder,
    require_images,
    short_names,
)
from r2d2_kapture.types import IndexArray, Report

NEIGHBOURS = 3
"""Greatest number of covisible images with drawn matches, most shared points first."""


def run_map(
    *,
    map_path: Path,
    image: str | None = None,
    images: Path | None = None,
    output_dir: Path = Path(),
) -> Report:
    """Draw an image of a map, and its matches with the images that share most points.

    Args:
        map_path: map to draw an image of; see --image.
        image: name of the image of --map; by default the one that observes most points.
        images: folder that stored names are relative to; by default that of the
            dataset, or that from which the pipeline or kapture_r2d2_colmap made the map
            or database.
        output_dir: folder for ``IMAGE.map.png``, ``IMAGE-OTHER.matches.png`` and
            ``IMAGE.map.json``.

    Raises:
        DatasetError: there is no map, no such image, or no file of it.
        ReconstructionError: the map has no pixels of keypoints.
        ImageError: an image cannot be read.
        OutputError: files cannot be written.
    """
    started = time.monotonic()
    sparse_map = read_sparse_map(map_path)
    if image is not None:
        require_images(map_path, sparse_map.images, image)
    name = image or max(sparse_map.images, key=lambda n: len(_rows(sparse_map, n)))
    folder = image_folder(images, map_path)
    short = dict(zip(sparse_map.images, short_names(list(sparse_map.images))))
    outputs = [output_dir / f"{file_stem(short[name])}.map.png"]
    tracks = sparse_map.track_lengths[_rows(sparse_map, name)]
    pixels = read_rgb(image_file(folder, name))
    xy = _pixels(map_path, sparse_map.images[name])
    save(draw_observed(pixels, xy, tracks, title=short[name]), outputs[0])
    shared = covisible(sparse_map, name)
    best = list(shared)[:NEIGHBOURS]
    for other in best:
        rows1, rows2 = _common(sparse_map.images[name], sparse_map.images[other])
        figure = draw_matches(
            pixels,
            read_rgb(image_file(folder, other)),
            xy[rows1],
            _pixels(map_path, sparse_map.images[other])[rows2],
            title=f"{short[name]} and {short[other]}, points of the map",
        )
        path = output_dir / f"{file_stem(short[name], short[other])}.matches.png"
        save(figure, path)
        outputs.append(path)
    numbers = output_dir / f"{file_stem(short[name])}.map.json"
    words: dict[str, Any] = {
        "image": name,
        "observed points": len(tracks),
        "mean track length": float(tracks.mean()) if len(tracks) else 0.0,
        "covisible images": len(shared),
    }
    write_json_atomic(
        numbers,
        {
            "map": str(map_path),
            "image": name,
            "keypoints": sparse_map.images[name].keypoint_count,
            "observed_points": len(tracks),
            "mean_track_length": words["mean track length"],
            "shared_points": shared,
            "pictures": [path.name for path in outputs],
        },
    )
    return Report(
        stage="view",
        done=1,
        skipped=0,
        failed=(),
        seconds=time.monotonic() - started,
        unit="photograph",
        outputs=(*outputs, numbers),
        details=words,
    )


def covisible(sparse_map: SparseMap, name: str) -> dict[str, int]:
    """Images that share points with an image, with their number, most points first."""
    own = np.zeros(len(sparse_map.points), bool)
    own[_rows(sparse_map, name)] = True
    counts = {
        other: int(own[np.unique(image.point_rows)].sum())
        for other, image in sparse_map.images.items()
        if other != name
    }
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {other: count for other, count in found if count}


def _common(one: MapImage, other: MapImage) -> tuple[IndexArray, IndexArray]:
    """Rows of observations of the same point in two images, each point once."""
    _, rows1, rows2 = np.intersect1d(
        one.point_rows, other.point_rows, return_indices=True
    )
    return rows1, rows2


def _rows(sparse_map: SparseMap, name: str) -> IndexArray:
    return sparse_map.images[name].point_rows


def _pixels(map_path: Path, image: MapImage) -> npt.NDArray[np.floating]:
    """(K, 2) pixels of the observations, (0, 0) at the centre of the first."""
    if image.xy is None:
        raise ReconstructionError(
            f"{map_path}: found a kapture map, whose observations have no pixels; give "
            "the COLMAP model next to it (sparse)"
        )
    return kapture_from_colmap(image.xy)
