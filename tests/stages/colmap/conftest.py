"""Files for the images of the scene, and a database that COLMAP made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.colmap import Foreign
from tests.scenes.extraction import patch_extraction
from tests.scenes.world import Scene
from tests.stages.colmap_runs import write_photos


@pytest.fixture(scope="package")
def scene() -> Scene:
    return Scene(times=2)


@pytest.fixture
def photos(tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Their extraction gives exact features."""
    patch_extraction(monkeypatch, scene)
    return write_photos(tmp_path / "photos é", scene)


@pytest.fixture
def foreign(photos: Path, scene: Scene) -> Foreign:
    return Foreign(photos.parent / "a b.db", scene)
