"""Queries of a scene of exact projections, and everything it takes to localize them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.stages.localize import stage as localize
from r2d2_kapture.types import Report
from tests.scenes.world import Scene, pair_matches, write_array, write_matches

Array = npt.NDArray[np.float64]
QUERY_TIME = 3
JUNK = 10
"""Keypoints of each image that show no point of the map."""
QUIET = RunOptions(progress=False, workers=2)


class LocalizationScene:
    """The three images of the last time are queries, the others make the map.

    The rows of keypoints are in another order in each image.

    Attributes:
        root: folder of all that is written.
        scene: the truth.
        queries: names: of the ``left`` and ``right`` camera of the rig, and ``walker``.
        mapped: names of the images of the map.
        rows: by image, the keypoint that shows each point.
    """

    def __init__(
        self, root: Path, *, noise: float = 0.0, outliers: float = 0.0, seed: int = 0
    ) -> None:
        self.root = root
        self.scene = Scene()
        self.rng = np.random.default_rng([7, seed])
        last = f"/{QUERY_TIME} b.jpg"
        self.queries = sorted(n for n in self.scene.names if n.endswith(last))
        self.mapped = sorted(set(self.scene.names) - set(self.queries))
        count = len(self.scene.points)
        self.rows = {
            name: self.rng.permutation(count + JUNK)[:count]
            for name in self.scene.names
        }
        self.write_features(noise)
        self.write_matches(outliers)
        self.write_map()
        self.write_query()
        self.write_pairs(
            [(query, image) for query in self.queries for image in self.mapped]
        )

    @property
    def map_path(self) -> Path:
        return self.root / "map"

    @property
    def query(self) -> Path:
        return self.root / "query"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def matches(self) -> Path:
        return self.root / "matches"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs.txt"

    def truth(self, name: str) -> pycolmap.Rigid3d:
        pose = rigid3d_from_kapture(self.scene.poses[name])
        assert pose is not None
        return pose

    def keypoint_file(self, name: str) -> Path:
        return self.features / f"reconstruction/keypoints/r2d2/{name}.kpt"

    def match_file(self, query: str, image: str) -> Path:
        first, second = sorted([query, image])
        folder = self.matches / "reconstruction/matches/r2d2"
        return folder / f"{first}.overlapping/{second}.matches"

    def write_features(self, noise: float) -> None:
        for name in self.scene.names:
            keypoints = np.empty((len(self.scene.points) + JUNK, 3), np.float32)
            keypoints[:] = self.rng.uniform(0, 400, keypoints.shape)
            keypoints[self.rows[name]] = self.scene.keypoints(name)
            if name in self.queries:
                keypoints[:, :2] += self.rng.normal(0, noise, (len(keypoints), 2))
            write_array(self.keypoint_file(name), keypoints)
        config = self.features / "reconstruction/keypoints/r2d2/keypoints.txt"
        config.write_text("# kapture format: 1.1\nr2d2, float32, 3\n")

    def write_matches(self, outliers: float) -> None:
        for query in self.queries:
            for image in self.mapped:
                indices = np.column_stack([self.rows[query], self.rows[image]])
                wrong = self.rng.random(len(indices)) < outliers
                indices[wrong, 1] = self.rng.permutation(indices[wrong, 1])
                self.replace_matches(query, image, indices)

    def replace_matches(self, query: str, image: str, indices: Array) -> None:
        matches = pair_matches(indices)
        first, second = sorted([query, image])
        matches = matches if first == query else matches.swapped()
        write_matches(self.matches, (first, second), matches)

    def write_map(self, seen: Mapping[str, Sequence[int]] | None = None) -> None:
        """A kapture dataset of the map.

        Args:
            seen: points that each image observes; all by default.
        """
        data = self.scene.dataset
        records = kapture.RecordsCamera()
        trajectories = kapture.Trajectories()
        for time, sensor_id, name in kapture.flatten(data.records_camera):
            if name in self.mapped:
                records[time, sensor_id] = name
                trajectories[time, sensor_id] = self.scene.poses[name]
        observations = kapture.Observations()
        for point in range(len(self.scene.points)):
            for name in self.mapped:
                if seen is None or point in seen.get(name, ()):
                    row = int(self.rows[name][point])
                    observations.add(point, "r2d2", name, row)
        dataset = kapture.Kapture(
            sensors=data.sensors,
            trajectories=trajectories,
            records_camera=records,
            points3d=kapture.Points3d(
                np.column_stack([self.scene.points, np.zeros((120, 3))])
            ),
            observations=observations,
        )
        kcsv.kapture_to_dir(str(self.map_path), dataset)

    def write_query(self, sensors: Mapping[str, kapture.Camera] | None = None) -> None:
        """The dataset of the queries, without poses.

        Args:
            sensors: cameras other than the true ones.
        """
        whole = self.scene.dataset
        times = {
            time
            for time, _, name in kapture.flatten(whole.records_camera)
            if name in self.queries
        }
        dataset = self.scene.part(sorted(times), poses=False)
        for time, sensor_id, name in list(kapture.flatten(dataset.records_camera)):
            if name not in self.queries:
                del dataset.records_camera[time][sensor_id]
        dataset.sensors = kapture.Sensors()
        for sensor_id, sensor in {**whole.sensors, **(sensors or {})}.items():
            dataset.sensors[sensor_id] = sensor
        kcsv.kapture_to_dir(str(self.query), dataset)

    def write_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        write_pairs(self.pairs, [ImagePair(image1=a, image2=b) for a, b in pairs])

    def run(
        self,
        config: LocalizeConfig = LocalizeConfig(),
        options: RunOptions = QUIET,
        output: str = "output",
        **changes: Any,
    ) -> Report:
        inputs: dict[str, Any] = {"pairs": self.pairs, "matches": [self.matches]}
        return localize.run(
            config,
            map_path=self.map_path,
            query=self.query,
            features=[self.features],
            output=self.root / output,
            options=options,
            **(inputs | changes),
        )

    def command(self, output: str = "output") -> list[str]:
        """What a user types after kapture_r2d2_localize."""
        return [
            *("--map", str(self.map_path)),
            *("--query", str(self.query)),
            *("--pairs", str(self.pairs)),
            *("--features", str(self.features)),
            *("--matches", str(self.matches)),
            *("--output", str(self.root / output)),
            "--quiet",
        ]


def position_error(found: pycolmap.Rigid3d, true: pycolmap.Rigid3d) -> float:
    offset = found.inverse().translation - true.inverse().translation
    return float(np.linalg.norm(offset))


def rotation_error(found: pycolmap.Rigid3d, true: pycolmap.Rigid3d) -> float:
    """Radians."""
    return float((found * true.inverse()).rotation.angle())
