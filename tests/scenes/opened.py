"""Which files are opened."""

from __future__ import annotations

import builtins
import io
import os
from typing import Any

import pytest


def opened_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which the path of each file is added that is opened from now on."""
    paths: list[str] = []
    open_file = io.open

    def spy(file: Any, *others: Any, **named: Any) -> Any:
        if not isinstance(file, int):
            paths.append(os.fsdecode(file))
        return open_file(file, *others, **named)

    monkeypatch.setattr(builtins, "open", spy)
    monkeypatch.setattr(io, "open", spy)
    return paths
