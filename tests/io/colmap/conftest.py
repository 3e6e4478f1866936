"""The scene of the tests of COLMAP's files."""

from __future__ import annotations

import pytest

from tests.scenes.world import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()
