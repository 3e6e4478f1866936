"""Recipes write pictures, which other tests look at."""

from __future__ import annotations

import pytest

from tests.scenes.figures import save_a_pixel


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a third of the time."""
    save_a_pixel(monkeypatch)
