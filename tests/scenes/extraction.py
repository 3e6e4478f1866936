"""Extraction that gives the exact features of a scene, whatever the images show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.outputs.image_records import ImageRecord, record_image, stamp_image
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.stages import extract
from r2d2_kapture.stages.extract import stage as extract_stage
from r2d2_kapture.types import LocalFeatures, Report
from tests.scenes.world import Scene

DIM = 32


def patch_network(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, dim: int, noise: float = 0.0
) -> None:
    """Let networks find exact keypoints; all else of ``extract.run`` is as it is."""
    features = scene.features(dim, noise)

    def extract_images(
        extractor: Any,
        paths: dict[str, Path],
        write: Callable[[str, LocalFeatures, ImageRecord], None],
        options: RunOptions,
        **others: Any,
    ) -> extract_stage.Tally:
        for name, path in paths.items():
            found = features(name)
            record = record_image(path, stamp_image(path), found.image_size)
            write(name, found, record)
        return extract_stage.Tally(done=len(paths))

    monkeypatch.setattr(extract_stage, "extract_images", extract_images)


def patch_extraction(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    """Let ``extract.run`` write exact keypoints, and a descriptor for each point."""
    features = scene.features(DIM)

    def run(
        extractor: Extractor,
        *,
        kapture_root: Path,
        output: Path | None = None,
        **others: Any,
    ) -> Report:
        kind = FeatureType(
            root=output or kapture_root,
            keypoints_type=extractor.label,
            descriptors_type=extractor.label,
            descriptor_dim=DIM,
        )
        manifest = Manifest(model={"name": "exact"}, settings={}, versions={})
        names = open_dataset(kapture_root).image_names
        with open_feature_writer(kind, manifest) as writer:
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
