"""Extraction that gives the exact features of a scene, whatever the images show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.io.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.kapture import open_dataset
from r2d2_kapture.io.manifest import Manifest
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages import extract
from r2d2_kapture.types import LocalFeatures, Report
from tests.colmap_scene import Scene

DIM = 32


def patch_extraction(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    """Let ``extract.run`` write exact keypoints, and a descriptor for each point."""
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(len(scene.points), DIM)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)

    def features(name: str) -> LocalFeatures:
        rows = scene.keypoints(name) if name in scene.names else np.zeros((0, 3))
        count = len(rows)
        return LocalFeatures(
            keypoints=rows[:, :2].astype(np.float32),
            scales=np.full(count, 32, np.float32),
            scores=np.ones(count, np.float32),
            descriptors=descriptors[:count],
            image_size=(640, 480),
        )

    def run(
        config: ExtractConfig,
        *,
        kapture_root: Path,
        checkpoint: Checkpoint,
        output: Path | None = None,
        **others: Any,
    ) -> Report:
        kind = FeatureType(
            root=output or kapture_root,
            keypoints_type=checkpoint.name,
            descriptors_type=checkpoint.name,
            descriptor_dim=DIM,
            tar=False,
        )
        manifest = Manifest(model={"name": "exact"}, settings={}, versions={})
        names = open_dataset(kapture_root).image_names
        with open_feature_writer(kind, manifest, force=False) as writer:
            todo = [name for name in names if not writer.is_complete(name)]
            for name in todo:
                writer.write(name, features(name))
        return Report(
            stage="extract",
            done=len(todo),
            skipped=len(names) - len(todo),
            failed=(),
            seconds=0,
            outputs=(),
        )

    monkeypatch.setattr(extract, "run", run)
