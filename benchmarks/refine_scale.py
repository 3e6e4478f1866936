"""Time and peak memory of kapture_r2d2_refine for more and more images.

    python benchmarks/refine_scale.py --images 100 1000 10000

A camera moves along a papered wall; each image shows about 100 points of it, which the
four images that follow it see as well, at places that are off by half a pixel. Each run
is a process of its own, so that its peak is its own, and is run again with nothing to
do.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from measure import Measurement, machine, measure
from PIL import Image

from r2d2_kapture.io.colmap.database import write_database
from r2d2_kapture.synthetic.textures import noise
from r2d2_kapture.types import PairMatches

WIDTH, HEIGHT, STEP, OVERLAP = 160, 120, 16, 4
"""Of an image in pixels, of the camera in pixels, and of images that are paired."""
NOISE = 0.5
"""Error of keypoints in pixels."""
PAPER = 256 * STEP
"""Pixels after which the paper repeats, farther apart than any pair."""
FOCAL, DEPTH = 4.0 * STEP, 4.0
TYPE = "r"


def main() -> None:
    """For each number of images make the data, refine it twice, print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--points", type=int, default=100, help="seen by an image")
    options = parser.parse_args()
    print(machine())
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            wall = Wall(count, options.points)
            wall.write(root)
            command = [
                *("-m", "r2d2_kapture.cli.refine", "--mapping", str(root / "mapping")),
                *("--features", str(root / "features")),
                *("--database", str(root / "map.db")),
                *("--output", str(root / "refined"), "--quiet"),
                *("--workers", str(options.workers)),
            ]
            first, again = measure(command), measure(command)
            print(
                f"{count:6} images: {cost(first, count)}; with nothing to do "
                f"{cost(again, count)}; {wall.errors(root)}",
                flush=True,
            )


def cost(run: Measurement, count: int) -> str:
    """Of a run: time, time an image, and peak memory."""
    return (
        f"{run.seconds:.1f} s ({1000 * run.cpu_seconds / count:.1f} ms of CPU an "
        f"image), peak {1024 * run.peak_gib:.0f} MiB"
    )


class Wall:
    """Images of a papered wall, and its points in each of them.

    Attributes:
        names: of the images, in the order in which they were taken.
        number: of each image by name.
        points: (N, 2) pixels of the wall, from left to right.
    """

    def __init__(self, images: int, points: int) -> None:
        self.names = [f"{number:06}.jpg" for number in range(images)]
        self.number = {name: number for number, name in enumerate(self.names)}
        self.rng = np.random.default_rng(0)
        width = images * STEP + WIDTH
        size = (points * width // WIDTH, 2)
        places = self.rng.uniform(0, [width, HEIGHT - 1], size)
        self.points = places[np.argsort(places[:, 0])]

    def seen(self, number: int) -> tuple[int, int]:
        """First point that an image shows, and the first after it that it does not."""
        left = number * STEP
        ends = np.searchsorted(self.points[:, 0], [left, left + WIDTH - 1])
        return int(ends[0]), int(ends[1])

    def truth(self, number: int) -> npt.NDArray[np.float64]:
        """(N, 2) pixels of the points that an image shows."""
        first, end = self.seen(number)
        return np.asarray(self.points[first:end] - [number * STEP, 0])

    def write(self, root: Path) -> None:
        """Dataset, pictures, keypoints, and the database of verified matches."""
        dataset = self.write_dataset(root / "mapping")
        keypoints = self.write_keypoints(root / "features")
        write_database(
            root / "map.db",
            dataset,
            read_keypoints=keypoints.__getitem__,
            read_matches=self.matches,
            read_geometry=self.geometry,
            pairs=[
                (first, second)
                for number, first in enumerate(self.names)
                for second in self.names[number + 1 : number + 1 + OVERLAP]
            ],
        )

    def write_dataset(self, root: Path) -> kapture.Kapture:
        """Records, poses and pictures."""
        data = kapture.Kapture(
            sensors=kapture.Sensors(),
            records_camera=kapture.RecordsCamera(),
            trajectories=kapture.Trajectories(),
        )
        params = [WIDTH, HEIGHT, FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2]
        data.sensors["camera"] = kapture.Camera("PINHOLE", params)
        paper = noise(self.rng, (PAPER + WIDTH, HEIGHT), coarsest=32)
        paper = (128 + 50 * paper).clip(0, 255)
        pictures = root / "sensors" / "records_data"
        pictures.mkdir(parents=True)
        for number, name in enumerate(self.names):
            data.records_camera[number, "camera"] = name
            pose = kapture.PoseTransform(r=[1, 0, 0, 0], t=[-float(number), 0, 0])
            data.trajectories[number, "camera"] = pose
            left = number * STEP % PAPER
            pixels = paper[:, left : left + WIDTH].astype(np.uint8)
            Image.fromarray(pixels).save(pictures / name, quality=95)
        kcsv.kapture_to_dir(str(root), data)
        return data

    def write_keypoints(self, root: Path) -> dict[str, npt.NDArray[np.float32]]:
        """Keypoints of the full image, as another tool writes them."""
        folder = root / "reconstruction" / "keypoints" / TYPE
        folder.mkdir(parents=True)
        head = f"# kapture format: 1.1\n{TYPE}, float32, 3\n"
        (folder / "keypoints.txt").write_text(head)
        written = {}
        for number, name in enumerate(self.names):
            xy = self.truth(number)
            xy = xy + self.rng.normal(0, NOISE, xy.shape)
            xy = xy.clip(0, [WIDTH - 1, HEIGHT - 1])
            rows = np.column_stack([xy, np.full(len(xy), 32)]).astype(np.float32)
            rows.tofile(folder / f"{name}.kpt")
            written[name] = rows
        return written

    def matches(self, first: str, second: str) -> PairMatches:
        """Keypoints of the points that both images show."""
        (start, end), (other, _) = (
            self.seen(self.number[name]) for name in (first, second)
        )
        shared = np.arange(other, end)
        rows = np.column_stack([shared - start, shared - other])
        return PairMatches(indices=rows, scores=np.ones(len(rows), np.float32))

    def geometry(self, first: str, second: str) -> pycolmap.TwoViewGeometry:
        """Which says that all matches are verified."""
        calibrated = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        indices = self.matches(first, second).indices.astype(np.uint32)
        return pycolmap.TwoViewGeometry(config=calibrated, inlier_matches=indices)

    def errors(self, root: Path) -> str:
        """Median distance of matched keypoints from where one says that the other is,
        before and after."""
        medians = [
            self.error(root / "features" / "reconstruction" / "keypoints" / TYPE),
            self.error(
                root / "refined" / "reconstruction" / "keypoints" / f"{TYPE}_refined"
            ),
        ]
        return f"median error of matches {medians[0]:.3f} px, after {medians[1]:.3f} px"

    def error(self, folder: Path) -> float:
        """Of some consecutive images."""
        found = []
        for number in range(min(100, len(self.names) - 1)):
            one, other = (
                np.fromfile(folder / f"{self.names[n]}.kpt", np.float32).reshape(-1, 3)
                for n in (number, number + 1)
            )
            shared = self.seen(number)[1] - self.seen(number + 1)[0]
            moved = one[len(one) - shared :, :2] - other[:shared, :2]
            found.append(np.linalg.norm(moved - [STEP, 0], axis=1))
        return float(np.median(np.concatenate(found)))


if __name__ == "__main__":
    main()
