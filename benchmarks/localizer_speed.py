"""Time per query of rk.Localizer: in total, up to its first pose, and for extraction.

    python benchmarks/localizer_speed.py
    python benchmarks/localizer_speed.py --mapping DATASET --query DATASET

Maps the images of a kapture dataset (by default a rendered room, 1600x1200) with the
features of a preset, and localizes each image of another, with its camera known and
unknown. Processor time of all cores is printed next to wall time: on a busy machine, it
tells the time on one idle core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import pycolmap
from measure import machine

import r2d2_kapture as rk
from r2d2_kapture.io.colmap.cameras import UNKNOWN_CAMERA, colmap_camera
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.synthetic.dataset import write_room_dataset


def main() -> None:
    """Map, localize, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mapping", type=Path, help="kapture dataset of the map")
    parser.add_argument("--query", type=Path, help="kapture dataset of the queries")
    parser.add_argument("--model", default="fast_r2d2_v6")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--work", type=Path, help="folder of the map, to keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mapping, query = options.mapping, options.query
        if mapping is None or query is None:
            room = write_room_dataset(
                Path(folder), mapping_images=12, query_images=4, image_size=(1600, 1200)
            )
            mapping, query = room.mapping, room.query
        work = options.work or Path(folder) / "work"
        rk.run_pipeline(
            mapping=mapping,
            output=work,
            model=options.model,
            preset=options.preset,
            mapping_pairs={"method": "exhaustive"},
        )
        print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
        extractor = rk.load_extractor(options.model, preset=options.preset)
        localizer = rk.Localizer(work / "map", extractor)
        first = rk.Localizer(work / "map", extractor, refine="off", second_pass="off")
        print(f"{len(localizer.sparse_map.images)} map images")
        print(f"{'query':40s} {'camera':>8s} {'inliers':>7s}", *HEADS)
        for name, (path, camera) in queries(query).items():
            for given in {"known": camera, "unknown": None}.items():
                if given == ("known", None):
                    continue
                print_query(localizer, first, name, path, *given)


HEADS = tuple(f"{head:>8s} {'cpu':>6s}" for head in ("seconds", "first", "network"))


def queries(root: Path) -> dict[str, tuple[Path, pycolmap.Camera | None]]:
    """File and camera of each image of a dataset; None where it is unknown."""
    dataset = open_dataset(root)
    origin = find_camera_origin(dataset, "auto").origin
    found: dict[str, tuple[Path, pycolmap.Camera | None]] = {}
    for _, sensor_id, name in image_records(dataset.data).values():
        sensor = dataset.data.cameras[sensor_id]
        known = sensor.camera_type.name != UNKNOWN_CAMERA
        camera = colmap_camera(sensor, 1, origin) if known else None
        found[name] = (dataset.image_path(name), camera)
    return found


def print_query(
    localizer: rk.Localizer,
    first: rk.Localizer,
    name: str,
    path: Path,
    kind: str,
    camera: pycolmap.Camera | None,
) -> None:
    """One line: a query, timed once in each way."""
    times = []
    for run in (
        lambda: localizer(path, camera),
        lambda: first(path, camera),
        lambda: localizer.extractor(path),
    ):
        started = time.perf_counter(), time.process_time()
        result = run()
        times += [time.perf_counter() - started[0], time.process_time() - started[1]]
        if isinstance(result, rk.Localization):
            inliers = result.inliers
    pairs = zip(times[::2], times[1::2])
    print(
        f"{name[-40:]:40s} {kind:>8s} {inliers:7d}",
        *(f"{wall:8.2f} {cpu:6.2f}" for wall, cpu in pairs),
        flush=True,
    )


if __name__ == "__main__":
    main()
