"""A scene whose descriptors tell its points apart, as two kapture datasets."""

from __future__ import annotations

import shutil
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np

from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features, write_rows
from tests.scenes.world import Scene

TIMES = 4
QUERY_TIME = 2
DIM = 32
PHOTOGRAPHED = "nuit é"
"""Name of the folder of photographs to localize."""
PIXEL_NOISE = 0.2


class PipelineScene:
    """Images of the middle time are queries with true poses, the others make the map.

    Attributes:
        mapping, query: kapture datasets with sensors, rigs, poses and images.
        features: keypoints and descriptors of all images, type ``points``.
    """

    def __init__(
        self, root: Path, *, mapping_poses: bool = True, times: int = TIMES
    ) -> None:
        self.scene = Scene(times=times)
        self.mapping = root / "mapping"
        self.query = root / "query é"
        self.features = root / "features"
        others = [time for time in range(times) if time != QUERY_TIME]
        for path, part in (
            (self.mapping, self.scene.part(others, poses=mapping_poses)),
            (self.query, self.scene.part([QUERY_TIME])),
        ):
            names = [name for _, _, name in kapture.flatten(part.records_camera)]
            self.scene.write_pictures(path / "sensors" / "records_data", names)
            kcsv.kapture_to_dir(str(path), part)
        self._write_features()

    def _write_features(self) -> None:
        rng = np.random.default_rng(1)
        points = unit_rows(len(self.scene.points), DIM)
        descriptors, keypoints = {}, {}
        for name in self.scene.names:
            noisy = points + rng.normal(0, 0.05, points.shape)
            noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
            rows = self.scene.keypoints(name)
            rows[:, :2] += rng.normal(0, PIXEL_NOISE, (len(rows), 2))
            descriptors[name] = noisy.astype(np.float32)
            keypoints[name] = rows
        write_features(self.features, descriptors, name="points")
        write_rows(
            self.features / "reconstruction/keypoints/points",
            "keypoints",
            keypoints,
            fields="points, float32, 3",
        )

    def command(self, output: Path) -> list[str]:
        """What a user types after kapture_r2d2_pipeline."""
        return [
            *("--mapping", str(self.mapping)),
            *("--query", f"queries={self.query}"),
            *("--features", str(self.features)),
            *("--output", str(output)),
            *("--query_pairs.method", "exhaustive"),
            "--quiet",
        ]


class Photographs(PipelineScene):
    """The scene's images as two folders of files, and their features by name."""

    def __init__(self, root: Path, *, times: int = TIMES) -> None:
        super().__init__(root, times=times)
        self.photos = root / "mes photos é"
        self.queries = root / PHOTOGRAPHED
        (self.mapping / "sensors" / "records_data").rename(self.photos)
        (self.query / "sensors" / "records_data").rename(self.queries)
        for kind in ("keypoints", "descriptors"):
            folder = self.features / "reconstruction" / kind / "points"
            shutil.copytree(folder / "seq é", folder / PHOTOGRAPHED / "seq é")
