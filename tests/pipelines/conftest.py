"""Recipes write pictures, which other tests look at."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def undrawn(empty_pictures: None) -> None:
    """All tests of recipes."""
