"""Engines beside torch, as parameters of tests, skipped where one is not installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from r2d2_kapture.core.runtime import EXTRAS


def _parameter(name: str, extra: str) -> Any:
    absent = [m for m in ("onnx", name) if importlib.util.find_spec(m) is None]
    return pytest.param(
        name, marks=pytest.mark.skipif(bool(absent), reason=f"needs the extra {extra}")
    )


OTHER_ENGINES = [_parameter(name, extra) for name, extra in EXTRAS.items()]
