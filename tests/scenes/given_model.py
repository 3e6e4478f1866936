"""A COLMAP model of a scene, as someone else made it, and its photographs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.stages import pipeline
from r2d2_kapture.types import Report
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_rows
from tests.scenes.pipeline import PipelineScene

CONFIG = PipelineConfig(
    mapping_pairs=PairsConfig(method="covisibility"),
    query_pairs=PairsConfig(method="exhaustive"),
    verify=VerifyConfig(geometry="known_poses"),
)


class Given:
    """A COLMAP model of a scene of others, with a rig, and photographs of its images.

    Attributes:
        scene: with features of the images, and queries.
        model: folder of the model.
        images: folder of its images.
    """

    def __init__(self, root: Path) -> None:
        self.scene = PipelineScene(root)
        self.images = self.scene.mapping / "sensors" / "records_data"
        self.model = root / "sparse" / "0"
        work = root / "theirs"
        pipeline.run(
            PipelineConfig(),
            mapping=self.scene.mapping,
            queries={},
            output=work,
            features=[self.scene.features],
            options=RunOptions(progress=False),
        )
        shutil.copytree(work / "map" / "sparse", self.model)

    def changed(self, path: Path, change: Callable[[Any], None]) -> Path:
        """A copy of the model in which something is different."""
        model = pycolmap.Reconstruction(str(self.model))
        change(model)
        path.mkdir()
        model.write(str(path))
        return path

    def run(self, output: Path, **changes: Any) -> list[Report]:
        """The reports of the stages, and last that of all."""
        reports: list[Report] = []
        inputs: dict[str, Any] = {
            "config": CONFIG,
            "model_in": self.model,
            "images": self.images,
            "queries": {"queries": self.scene.query},
            "features": [self.scene.features],
            "options": RunOptions(progress=False),
        }
        whole = pipeline.run(
            output=output, announce=reports.append, **(inputs | changes)
        )
        return [*reports, whole]

    def command(
        self,
        output: Path,
        *more: str,
        model: Path | None = None,
        images: Path | None = None,
    ) -> list[str]:
        """What a user types after kapture_r2d2_pipeline."""
        return [
            *("--model-in", str(model or self.model)),
            *("--images", str(images or self.images)),
            *("--features", str(self.scene.features), "--output", str(output)),
            "--quiet",
            *more,
        ]

    def write_database(self) -> Path:
        """The database of the model, with SIFT of keypoints, one row above it."""
        path = self.model.parent.parent / "database.db"
        path.unlink(missing_ok=True)
        model = pycolmap.Reconstruction(str(self.model))
        sift = pycolmap.FeatureExtractorType.SIFT
        with closing(pycolmap.Database.open(str(path))) as database:
            for camera in model.cameras.values():
                database.write_camera(camera, use_camera_id=True)
            for image in model.images.values():
                alone = pycolmap.Image(
                    name=image.name, camera_id=image.camera_id, image_id=image.image_id
                )
                database.write_image(alone, use_image_id=True)
                xy = np.array([point.xy for point in image.points2D], np.float32)
                shapes = np.tile(np.array([2, 0, 0, 2], np.float32), (len(xy), 1))
                keypoints = np.hstack([xy, shapes])
                database.write_keypoints(image.image_id, keypoints)
                found = pycolmap.FeatureDescriptors(sift, self.sift_rows())
                database.write_descriptors(image.image_id, found)
        return path

    def sift_rows(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(120, 128) bytes, one row a point of the scene."""
        rows = np.abs(unit_rows(len(self.scene.scene.points), 128)) * 512
        return np.minimum(rows, 255).astype(np.uint8)

    def write_query_features(self, root: Path) -> Path:
        """SIFT of the queries as kapture_r2d2_extract writes it: three columns."""
        names = [name for name in self.scene.scene.names if "/2 b" in name]
        write_rows(
            root / "reconstruction/descriptors/sift",
            "descriptors",
            {name: self.sift_rows() for name in names},
            fields="sift, uint8, 128, sift, L2",
        )
        write_rows(
            root / "reconstruction/keypoints/sift",
            "keypoints",
            {name: self.scene.scene.keypoints(name) for name in names},
            fields="sift, float32, 3",
        )
        return root
