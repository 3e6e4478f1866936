"""What takes a while to make, once for all tests of stages, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ready_to_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scene's dataset and database lie; to be copied, not changed."""
    # tests of training run where there is no pycolmap
    from tests.scenes.world import Scene
    from tests.stages.map_runs import prepare

    return prepare(tmp_path_factory.mktemp("scene"), Scene())


@pytest.fixture(autouse=True)
def undrawn(empty_pictures: None) -> None:
    """All tests of stages, but for those marked ``draws``."""
