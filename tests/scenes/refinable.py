"""Photographs of a plane whose keypoints can be refined, as inputs of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.stages import pipeline
from r2d2_kapture.types import LocalFeatures, Report
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_rows
from tests.scenes.plane import TYPE, PlaneScene

DIM = 32
ON = PipelineConfig(query_pairs=PairsConfig(method="exhaustive"))


class RefinableScene(PlaneScene):
    """Photographs of a plane with features; the last one is a query.

    Attributes:
        query: its dataset.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, images=5)
        self.query = root / "query"
        whole = kcsv.kapture_from_dir(str(self.mapping))
        *_, last = sorted(whole.records_camera)
        for folder, times in (
            (self.query, [last]),
            (self.mapping, set(whole.records_camera) - {last}),
        ):
            records, poses = kapture.RecordsCamera(), kapture.Trajectories()
            for time in times:
                records[time] = whole.records_camera[time]
                poses[time] = whole.trajectories[time]
            part = kapture.Kapture(
                sensors=whole.sensors, records_camera=records, trajectories=poses
            )
            kcsv.kapture_to_dir(str(folder), part)
        there = self.query / "sensors" / "records_data"
        there.symlink_to(self.photographs)
        rows = unit_rows(len(self.points), DIM)
        write_rows(
            self.features / "reconstruction/descriptors" / TYPE,
            "descriptors",
            {name: rows[self.seen[name]] for name in self.names},
            fields=f"{TYPE}, float32, {DIM}, {TYPE}, L2",
        )

    def run(self, output: Path, config: PipelineConfig = ON, **changes: Any) -> Report:
        settings: dict[str, Any] = {
            "mapping": self.mapping,
            "queries": {"query": self.query},
            "output": output,
            "features": [self.features],
            "options": RunOptions(progress=False),
        }
        return pipeline.run(config, **(settings | changes))

    def read_features(self, name: str) -> LocalFeatures:
        """The features of an image."""
        return open_local_features([self.features]).read(name, self.sizes[name])

    @property
    def photographs(self) -> Path:
        """Folder of all images."""
        return self.mapping / "sensors" / "records_data"
