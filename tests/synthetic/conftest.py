"""The room is built once for all the tests of its renderer and its datasets."""

from __future__ import annotations

import pytest

from r2d2_kapture.synthetic.rendering import Scene
from r2d2_kapture.synthetic.room import textured_room


@pytest.fixture(scope="session")
def room() -> Scene:
    return textured_room(0)
