"""Time and memory of the choice of pairs, by the number of images.

    python benchmarks/pairs_scale.py --images 1000 10000 100000
    python benchmarks/pairs_scale.py --methods global --images 100000 --queries 2000 \
        --dim 1024 --memory-gb 0.5

Images have names, poses, positions, points of a map that some twenty neighbours see
too, and random features in archives, but no pixels. ``fuse`` and ``merge``
join the lists of ``poses`` and ``sequential``; ``global`` and ``local`` pair
``--queries`` with all.
Times are of all cores, of the whole command, less those of a command with ten images.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from measure import Measurement, machine, measure

from r2d2_kapture.io.kapture.pairs import read_pairs

METHODS = (
    *("sequential", "poses", "gnss", "covisibility"),
    *("fuse", "merge", "global", "local"),
)
COMMAND = Path(__file__).parents[1] / "bin" / "kapture_r2d2_pairs"
HEAD = "# kapture format: 1.1\n"
POINTS_SEEN, STEP = 60, 6
KEYPOINTS, DIM = 64, 32
SPACING = 3.0
"""Metres between neighbouring images, whatever their number."""
SMALL = 10


def main() -> None:
    """Make the data, run each method on it, print a row of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--memory-gb", type=float, default=4.0)
    options = parser.parse_args()
    print(machine())
    print("| method | images | pairs | ms an image | peak GiB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        chosen = set(options.methods)
        if chosen & {"fuse", "merge"}:
            chosen |= {"sequential", "poses"}
        least = {
            method: once(Path(folder) / "small", method, SMALL, options)[0]
            for method in METHODS
            if method in chosen
        }
        for count in options.images:
            root = Path(folder) / str(count)
            for method in least:
                found, pairs = once(root, method, count, options)
                each = (found.cpu_seconds - least[method].cpu_seconds) / count
                print(
                    f"| {method} | {count} | {pairs} | {1000 * each:.3f} | "
                    f"{found.peak_gib:.2f} |",
                    flush=True,
                )


def once(
    root: Path, method: str, count: int, options: argparse.Namespace
) -> tuple[Measurement, int]:
    """Measure a method on a dataset, which is made where it is not there."""
    if not root.is_dir():
        # elsewhere: the peak of a command begins with the memory of what starts it
        for part, number in ("mapping", count), ("query", min(options.queries, count)):
            arguments = (root / part, number, part[0], options)
            process = get_context("spawn").Process(target=write_dataset, args=arguments)
            process.start()
            process.join()
    output = root / f"{method}.txt"
    command = ["--mapping", root / "mapping", "--method", method, "--output", output]
    if method in ("global", "local"):
        command += ["--query", root / "query", "--memory-gb", options.memory_gb]
        command += ["--store", "tar"]
    if method == "covisibility":
        command += ["--map", root / "mapping"]
    if method in ("fuse", "merge"):
        command += ["--merge", root / "poses.txt", root / "sequential.txt"]
    return measure([str(COMMAND), *map(str, command)]), len(read_pairs(output))


def write_dataset(
    root: Path, count: int, prefix: str, options: argparse.Namespace
) -> None:
    """Images at random places, of an area that grows with their number."""
    rng = np.random.default_rng(ord(prefix))
    names = [f"{prefix}/{number:07}.jpg" for number in range(count)]
    sensors = root / "sensors"
    (root / "reconstruction").mkdir(parents=True)
    sensors.mkdir()
    write(
        sensors / "sensors.txt",
        ["cam, , camera, SIMPLE_PINHOLE, 64, 64, 50, 32, 32"]
        + ["GPS_cam, , gnss, EPSG:4326"],
    )
    write(
        sensors / "records_camera.txt", [f"{i}, cam, {n}" for i, n in enumerate(names)]
    )
    side = SPACING * count**0.5
    places = rng.uniform(0, side, (count, 2))
    halves = rng.uniform(0, np.pi, count)
    lines = []
    for i, ((x, y), half) in enumerate(zip(places, halves)):
        cosine, sine = np.cos(2 * half), np.sin(2 * half)
        # about the vertical: the centre is -R^T t
        tx, tz = -(cosine * x + sine * y), -(-sine * x + cosine * y)
        lines.append(f"{i}, cam, {np.cos(half)}, 0, {np.sin(half)}, 0, {tx}, 0, {tz}")
    write(sensors / "trajectories.txt", lines)
    degrees = 45 + places / 1e5
    write(
        sensors / "records_gnss.txt",
        [f"{i}, GPS_cam, {x}, {y}, 10, 0, 1" for i, (x, y) in enumerate(degrees)],
    )
    write_map(root / "reconstruction", names)
    kinds = {}
    if "global" in options.methods:
        kinds["global_features"] = ("gfeat", 1, options.dim, "L2")
    if "local" in options.methods:
        kinds["keypoints"] = ("kpt", KEYPOINTS, 2, "")
        kinds["descriptors"] = ("desc", KEYPOINTS, DIM, "k, L2")
    for kind, described in kinds.items():
        write_features(root / "reconstruction" / kind / "k", kind, names, *described)


def write_map(folder: Path, names: list[str]) -> None:
    """Points that ten successive images see, sixty of each image."""
    points = len(names) * STEP + POINTS_SEEN
    write(folder / "points3d.txt", ["1, 2, 3, 0, 0, 0"] * points)
    lines = []
    for point in range(points):
        last = min(point // STEP, len(names) - 1)
        first = max(-(-(point - POINTS_SEEN + 1) // STEP), 0)
        seen = [f"{names[i]}, {point - i * STEP}" for i in range(first, last + 1)]
        lines.append(", ".join([str(point), "k", *seen]))
    write(folder / "observations.txt", lines)


def write_features(
    folder: Path,
    kind: str,
    names: list[str],
    suffix: str,
    count: int,
    dim: int,
    ending: str,
) -> None:
    """Random rows of all images in kapture's archive."""
    rng = np.random.default_rng(dim)
    folder.mkdir(parents=True)
    write(folder / f"{kind}.txt", [f"k, float32, {dim}, {ending}".rstrip(", ")])
    with tarfile.open(folder / f"{kind}.tar", "w") as archive:
        for name in names:
            rows = rng.uniform(1, 60, (count, dim)) - 30 * (kind != "keypoints")
            data = rows.astype("<f4").tobytes()
            member = tarfile.TarInfo(f"{name}.{suffix}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            archive.members.clear()  # type: ignore[attr-defined]


def write(path: Path, lines: list[str]) -> None:
    """A text file of kapture."""
    path.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
