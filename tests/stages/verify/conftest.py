"""A scene with wrong matches, and its dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.world import Scene


@pytest.fixture(scope="package")
def scene() -> Scene:
    return Scene(times=2, noise=0.5, wrong=4)


@pytest.fixture
def mapping(tmp_path: Path, scene: Scene) -> Path:
    return scene.write_kapture(tmp_path / "mapping")
