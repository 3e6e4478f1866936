"""A scene as MegaDepth publishes it, made once, and copies of it to damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.megadepth import WrittenScene
from tests.stages.megadepth_copies import unprepared_copy, write_and_prepare


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> WrittenScene:
    return write_and_prepare(tmp_path_factory.mktemp("published"))


@pytest.fixture
def scene(published: WrittenScene, tmp_path: Path) -> WrittenScene:
    """A copy of the scene to damage, not prepared."""
    return unprepared_copy(published, tmp_path)
