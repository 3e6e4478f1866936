"""Fixtures shared by the tests; what needs ../shared skips where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared of real data and reference outputs."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real data of {SHARED}")
    return SHARED
