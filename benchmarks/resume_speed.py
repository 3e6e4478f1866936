"""Time of a resume with nothing to do, of each stage, for 10,000 images.

    python benchmarks/resume_speed.py

A camera moves along a wall of points; each image has exact keypoints of 40 points and
is paired with the two that follow it. Queries are images of the same camera between
them. Each stage is run, run again, and run once more without its note of the finished
run: contents are then compared, as after a change. Extraction, which has no such note,
is by SIFT, of small photographs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
from measure import machine
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.stages import localize, map, match, pairs, verify
from r2d2_kapture.types import Report

POINTS_SEEN, STEP = 40, 10
"""Points of an image, and how many an image is ahead of the one before it."""
SIDE, FOCAL, DIM, DEPTH = 64, 50.0, 16, (4.0, 8.0)
QUIET = RunOptions(progress=False)


def main() -> None:
    """Make the data, run each stage three times, print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_000)
    options = parser.parse_args()
    if options.queries >= options.images:
        parser.error("expected fewer --queries than --images, between which they are")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"{number:06}.jpg" for number in range(options.images)]
        queries = [f"q{number:06}.jpg" for number in range(options.queries)]
        write_dataset(root / "mapping", names, poses=True)
        write_dataset(root / "query", queries, poses=False)
        write_features(root / "features", names, queries)
        listed = [
            ImagePair(image1=query, image2=names[number + next_one])
            for number, query in enumerate(queries)
            for next_one in (0, 1)
        ]
        write_pairs(root / "query.txt", listed)
        for name, run in stages(root).items():
            times = timed(run), timed(run)
            for path in root.rglob(f"*{FINISHED_NAME}"):
                path.unlink()
            print(
                f"{name:9} {times[0]:7.1f} s, again {times[1]:5.1f} s, "
                f"comparing contents {timed(run):6.1f} s",
                flush=True,
            )


def stages(root: Path) -> dict[str, Callable[[], Report]]:
    """The stages, in order, each with what those before it made."""
    mapping, features = root / "mapping", [root / "features"]
    matches = root / "matches"

    def matched(listed: str) -> Report:
        return match.run(
            MatchConfig(),
            features=features,
            pairs=root / listed,
            output=matches,
            options=QUIET,
        )

    return {
        "extract": lambda: rk.extract(
            kapture_root=mapping,
            extractor="sift",
            output=root / "extracted",
            progress=False,
        ),
        "pairs": lambda: pairs.run(
            PairsConfig(method="sequential", overlap=2),
            mapping=mapping,
            output=root / "pairs.txt",
            options=QUIET,
        ),
        "match": lambda: matched("pairs.txt"),
        "verify": lambda: verify.run(
            VerifyConfig(geometry="known_poses"),
            mapping=mapping,
            features=features,
            matches=[matches],
            pairs=root / "pairs.txt",
            database=root / "map.db",
            output=root / "verified",
            options=QUIET,
        ),
        "map": lambda: map.run(
            MapConfig(method="triangulate"),
            mapping=mapping,
            database=root / "map.db",
            output=root / "map",
            features=features,
            options=QUIET,
        ),
        "(match)": lambda: matched("query.txt"),
        "localize": lambda: localize.run(
            LocalizeConfig(),
            map_path=root / "map",
            query=root / "query",
            pairs=root / "query.txt",
            features=features,
            matches=[matches],
            output=root / "localized",
            options=QUIET,
        ),
    }


def timed(run: Callable[[], Report]) -> float:
    """Seconds of a run.

    Raises:
        RuntimeError: an item failed, and would be tried again.
    """
    started = time.perf_counter()
    report = run()
    if report.failed:
        raise RuntimeError(report.to_text()[:400])
    return time.perf_counter() - started


def write_dataset(root: Path, names: list[str], *, poses: bool) -> None:
    """A dataset of one camera and small photographs; queries are between images."""
    data = kapture.Kapture(
        sensors=kapture.Sensors(),
        records_camera=kapture.RecordsCamera(),
        trajectories=kapture.Trajectories() if poses else None,
    )
    params = [SIDE, SIDE, FOCAL, FOCAL, (SIDE - 1) / 2, (SIDE - 1) / 2]
    data.sensors["camera"] = kapture.Camera("PINHOLE", params)
    for number, name in enumerate(names):
        data.records_camera[number, "camera"] = name
        if poses:
            pose = kapture.PoseTransform(r=[1, 0, 0, 0], t=[-float(number), 0, 0])
            data.trajectories[number, "camera"] = pose
    kcsv.kapture_to_dir(str(root), data)
    pictures = root / "sensors" / "records_data"
    pictures.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(pictures / names[0])
    content = (pictures / names[0]).read_bytes()
    for name in names[1:]:
        (pictures / name).write_bytes(content)


def write_features(root: Path, names: list[str], queries: list[str]) -> None:
    """Keypoints and descriptors as another tool writes them."""
    rng = np.random.default_rng(1)
    count = len(names) * STEP + POINTS_SEEN
    points = rng.uniform([-0.5, -2, DEPTH[0]], [0.5, 2, DEPTH[1]], (count, 3))
    points[:, 0] += (np.arange(count) - POINTS_SEEN / 2) / STEP
    descriptors = rng.normal(size=(count, DIM)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    folders = {
        kind: root / "reconstruction" / kind / "r"
        for kind in ("keypoints", "descriptors")
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    head = "# kapture format: 1.1\n"
    (folders["keypoints"] / "keypoints.txt").write_text(f"{head}r, float32, 3\n")
    (folders["descriptors"] / "descriptors.txt").write_text(
        f"{head}r, float32, {DIM}, r, L2\n"
    )
    places = [(name, float(number)) for number, name in enumerate(names)]
    places += [(name, number + 0.5) for number, name in enumerate(queries)]
    for name, place in places:
        first = int(place * STEP)
        seen = points[first : first + POINTS_SEEN] - [place, 0, 0]
        xy = FOCAL * seen[:, :2] / seen[:, 2:] + (SIDE - 1) / 2
        xy = xy.clip(0, SIDE - 1)
        rows = np.column_stack([xy, np.full(len(xy), 8)]).astype(np.float32)
        rows.tofile(folders["keypoints"] / f"{name}.kpt")
        descriptors[first : first + POINTS_SEEN].tofile(
            folders["descriptors"] / f"{name}.desc"
        )


if __name__ == "__main__":
    main()
