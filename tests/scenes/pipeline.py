"""A scene whose descriptors tell its points apart, as two kapture datasets."""

from __future__ import annotations

from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
from PIL import Image

from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features, write_rows
from tests.scenes.world import HEIGHT, WIDTH, Scene

TIMES = 5
QUERY_TIME = 2
DIM = 32
PIXEL_NOISE = 0.2


class PipelineScene:
    """Images of the middle time are queries with true poses, the others make the map.

    Attributes:
        mapping, query: kapture datasets with sensors, rigs, poses and images.
        features: keypoints and descriptors of all images, type ``points``.
    """

    def __init__(self, root: Path, *, mapping_poses: bool = True) -> None:
        self.scene = Scene(times=TIMES)
        self.mapping = root / "mapping"
        self.query = root / "query é"
        self.features = root / "features"
        others = [time for time in range(TIMES) if time != QUERY_TIME]
        self._write_dataset(self.mapping, others, poses=mapping_poses)
        self._write_dataset(self.query, [QUERY_TIME], poses=True)
        self._write_features()

    def _write_dataset(self, root: Path, times: list[int], *, poses: bool) -> None:
        whole = self.scene.dataset
        records = kapture.RecordsCamera()
        trajectories = kapture.Trajectories()
        for time, sensor_id, name in kapture.flatten(whole.records_camera):
            if time in times:
                records[time, sensor_id] = name
                path = root / "sensors" / "records_data" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (WIDTH, HEIGHT), "grey").save(path)
        for time in times:
            for device, pose in whole.trajectories[time].items():
                trajectories[time, device] = pose
        dataset = kapture.Kapture(
            sensors=whole.sensors,
            rigs=whole.rigs,
            records_camera=records,
            trajectories=trajectories if poses else None,
        )
        kcsv.kapture_to_dir(str(root), dataset)

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
