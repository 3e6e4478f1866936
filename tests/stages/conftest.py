"""What takes a while to make, once for all tests of stages, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.figures import save_a_pixel


@pytest.fixture(scope="session")
def ready_to_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scene's dataset and database lie; to be copied, not changed."""
    # tests of training run where there is no pycolmap
    from tests.scenes.world import Scene
    from tests.stages.map_runs import prepare

    return prepare(tmp_path_factory.mktemp("scene"), Scene())


@pytest.fixture(autouse=True)
def empty_pictures(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages draw what they made, which takes a third of the time."""
    if request.node.get_closest_marker("draws") is None:
        save_a_pixel(monkeypatch)
