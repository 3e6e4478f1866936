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
from measure import Measurement, machine, measure
from PIL import Image

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.stages import verify
from r2d2_kapture.synthetic.textures import noise

WIDTH, HEIGHT, STEP, OVERLAP = 160, 120, 16, 4
"""Of an image in pixels, of the camera in pixels, and of images that are paired."""
DENSITY, NOISE = 100 / WIDTH, 0.5
"""Points a column of the wall, and the error of keypoints in pixels."""
PAPER = 256 * STEP
"""Pixels after which the paper repeats, farther apart than any pair."""
FOCAL, DEPTH = 4.0 * STEP, 4.0
TYPE = "r"


def main() -> None:
    """For each number of images make the data, refine it twice, print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(machine())
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            wall = Wall(count)
            wall.write(root)
            command = [
                *("-m", "r2d2_kapture.cli.refine", "--mapping", str(root / "mapping")),
                *("--features", str(root / "features")),
                *(
                    "--database",
                    str(root / "map.db"),
                    "--workers",
                    str(options.workers),
                ),
                *("--output", str(root / "refined"), "--quiet"),
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
        names: of the images.
        points: (N, 2) pixels of the wall, from left to right.
    """

    def __init__(self, images: int) -> None:
        self.names = [f"{number:06}.jpg" for number in range(images)]
        self.rng = np.random.default_rng(0)
        width = images * STEP + WIDTH
        size = (int(DENSITY * width), 2)
        points = self.rng.uniform(0, [width, HEIGHT - 1], size)
        self.points = points[np.argsort(points[:, 0])]

    def seen(self, number: int) -> tuple[int, int]:
        """First point that an image shows, and the first after it that it does not."""
        left = number * STEP
        ends = np.searchsorted(self.points[:, 0], [left, left + WIDTH - 1])
        return int(ends[0]), int(ends[1])

    def truth(self, number: int) -> npt.NDArray[np.float64]:
        """(N, 2) pixels of the points that an image shows."""
        first, end = self.seen(number)
        return self.points[first:end] - [number * STEP, 0]

    def write(self, root: Path) -> None:
        """Dataset, pictures, keypoints, matches and the database of them."""
        self.write_dataset(root / "mapping")
        self.write_features(root)
        verify.run(
            VerifyConfig(geometry="known_poses"),
            mapping=root / "mapping",
            features=[root / "features"],
            matches=[root / "matches"],
            database=root / "map.db",
            output=root / "verified",
            options=RunOptions(progress=False),
        )

    def write_dataset(self, root: Path) -> None:
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

    def write_features(self, root: Path) -> None:
        """Keypoints, and matches of images with those that follow them."""
        folder = root / "features" / "reconstruction" / "keypoints" / TYPE
        matches = root / "matches" / "reconstruction" / "matches" / TYPE
        folder.mkdir(parents=True)
        head = f"# kapture format: 1.1\n{TYPE}, float32, 3\n"
        (folder / "keypoints.txt").write_text(head)
        for number, name in enumerate(self.names):
            xy = self.truth(number)
            xy = xy + self.rng.normal(0, NOISE, xy.shape)
            rows = np.column_stack(
                [xy.clip(0, [WIDTH - 1, HEIGHT - 1]), 0 * xy[:, 0] + 32]
            )
            rows.astype(np.float32).tofile(folder / f"{name}.kpt")
            (matches / f"{name}.overlapping").mkdir(parents=True)
            first, end = self.seen(number)
            for other in range(number + 1, min(number + 1 + OVERLAP, len(self.names))):
                start = self.seen(other)[0]
                shared = np.arange(start, end)
                pair = np.column_stack([shared - first, shared - start, 0 * shared + 1])
                target = (
                    matches / f"{name}.overlapping" / f"{self.names[other]}.matches"
                )
                pair.astype(np.float64).tofile(target)

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
