"""What maps are made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path, ready_to_map: Path) -> Path:
    """A copy of the scene's dataset and database, to change."""
    return Path(shutil.copytree(ready_to_map, tmp_path / "scene"))
