"""A scene as MegaDepth publishes it, made once, and copies of it to damage."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.scenes.megadepth import WrittenScene
from tests.stages.contract_runs import FORKS
from tests.stages.megadepth_copies import unprepared_copy, write_and_prepare


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> WrittenScene:
    return write_and_prepare(tmp_path_factory.mktemp("published"))


@pytest.fixture
def scene(published: WrittenScene, tmp_path: Path) -> WrittenScene:
    """A copy of the scene to damage, not prepared."""
    return unprepared_copy(published, tmp_path)


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start with all that they import."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: FORKS)
