"""Queries and their map."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.localization import LocalizationScene


@pytest.fixture
def exact(tmp_path: Path) -> LocalizationScene:
    return LocalizationScene(tmp_path)


@pytest.fixture
def noisy(tmp_path: Path) -> LocalizationScene:
    return LocalizationScene(tmp_path, noise=0.5, outliers=0.5)
