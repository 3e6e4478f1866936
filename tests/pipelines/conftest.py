"""Recipes write pictures, which other tests look at."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have a pixel, which takes a third of the time."""

    def save(self: Figure, path: Any, **settings: Any) -> None:
        Image.new("L", (1, 1)).save(path, "PNG")

    monkeypatch.setattr(Figure, "savefig", save)
