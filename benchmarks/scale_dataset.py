"""Kapture datasets of the world of scale_world.py, by number of images.

    python benchmarks/scale_dataset.py --images 1000 --output world

writes ``mapping`` and ``query``, one query for ten images, and the pairs of queries.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from PIL import Image
from scale_world import FOCAL, SHARED, SIZE, STREET, Place

QUERY_EVERY = 10
"""Images of the map for each query."""
HEAD = "# kapture format: 1.1\n"
PLUGIN = {
    "METADATA": "Metadata-Version: 2.1\nName: scale-world\nVersion: 1\n",
    "entry_points.txt": "[r2d2_kapture.extractors]\n"
    "exact = scale_world:ExactExtractor\n",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the datasets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    World(options.images).write(options.output)


@dataclass(frozen=True)
class World:
    """The images of a world, by their number.

    Attributes:
        images: of the map.
    """

    images: int

    def mapping(self) -> Iterator[tuple[str, Place]]:
        """Names and places of the images of the map."""
        for number in range(self.images):
            yield image_name(number), Place(2 * number)

    def queries(self) -> Iterator[tuple[str, Place]]:
        """Names and places of queries: between two images of one street."""
        for number in range(0, self.images, QUERY_EVERY):
            if number + 1 < self.images and (number + 1) % STREET:
                yield f"query/{number:09}.png", Place(2 * number + 1)

    def query_pairs(self) -> Iterator[tuple[str, str]]:
        """Each query with the images before and after it, as far as its street goes."""
        for name, place in self.queries():
            number = place.half // 2
            for other in range(number - 1, number + SHARED):
                if other // STREET == place.street and other < self.images:
                    yield name, image_name(other)

    def streets(self) -> Iterator[int]:
        """Numbers of images of the streets."""
        whole, rest = divmod(self.images, STREET)
        yield from [STREET] * whole
        if rest:
            yield rest

    @property
    def pair_count(self) -> int:
        """Pairs of images of the map that share points."""
        steps = range(1, SHARED + 1)
        return sum(max(n - step, 0) for n in self.streets() for step in steps)

    def match_count(self, keypoints: int) -> int:
        """Points that these pairs share."""
        shared = {step: SHARED + 1 - step for step in range(1, SHARED + 1)}
        blocks = sum(
            quarters * max(n - step, 0)
            for n in self.streets()
            for step, quarters in shared.items()
        )
        return blocks * keypoints // (SHARED + 1)

    def point_count(self, keypoints: int) -> int:
        """Points that two or more images of the map show."""
        blocks = sum(n + 1 for n in self.streets() if n > 1)
        return blocks * keypoints // (SHARED + 1)

    def write(self, root: Path) -> None:
        """Write the datasets, one image at a time."""
        write_dataset(root / "mapping", self.mapping(), poses=True)
        write_dataset(root / "query", self.queries(), poses=False)
        with (root / "pairs_query.txt").open("w", encoding="utf-8") as lines:
            lines.write(f"{HEAD}# query_image, map_image, score\n")
            for query, other in self.query_pairs():
                lines.write(f"{query}, {other}, 1\n")


def image_name(number: int) -> str:
    """Of an image of the map, in the folder of its street."""
    return f"{number // STREET:05}/{number:09}.png"


def install_extractor(folder: Path) -> str:
    """PYTHONPATH of commands that know the extractor ``exact``.

    Args:
        folder: for what says where it is.
    """
    metadata = folder / "scale_world-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    for name, text in PLUGIN.items():
        (metadata / name).write_text(text, "utf-8")
    return os.pathsep.join([str(folder.resolve()), str(Path(__file__).parent)])


def write_dataset(
    root: Path, images: Iterator[tuple[str, Place]], *, poses: bool
) -> None:
    """Tables and images of a dataset; timestamps of a street are consecutive."""
    sensors = root / "sensors"
    pictures = sensors / "records_data"
    pictures.mkdir(parents=True)
    camera = [*SIZE, FOCAL, FOCAL, *((side - 1) / 2 for side in SIZE)]
    (sensors / "sensors.txt").write_text(
        f"{HEAD}camera, , camera, PINHOLE, {', '.join(map(str, camera))}\n", "utf-8"
    )
    with ExitStack() as files:

        def table(name: str) -> TextIO:
            file = files.enter_context((sensors / name).open("w", encoding="utf-8"))
            file.write(HEAD)
            return file

        records = table("records_camera.txt")
        trajectory = table("trajectories.txt") if poses else None
        for name, place in images:
            path = pictures / name
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(place.pixels()).save(path)
            row = f"{place.timestamp}, camera"
            records.write(f"{row}, {name}\n")
            if trajectory is not None:
                numbers = *place.quaternion, *place.translation.tolist()
                trajectory.write(f"{row}, {', '.join(map(repr, numbers))}\n")


if __name__ == "__main__":
    main()
