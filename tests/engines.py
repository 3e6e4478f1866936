"""Engines beside torch, as parameters of tests, skipped where one is not installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.core.runtime import EXTRAS


def library(name: str) -> Any:
    """The library of an engine, imported as the package does: without telemetry."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs the extra {EXTRAS[name]}")
    return import_extra(name, EXTRAS[name], "a test")


def _parameter(name: str, extra: str) -> Any:
    absent = [m for m in ("onnx", name) if importlib.util.find_spec(m) is None]
    return pytest.param(
        name, marks=pytest.mark.skipif(bool(absent), reason=f"needs the extra {extra}")
    )


OTHER_ENGINES = [_parameter(name, extra) for name, extra in EXTRAS.items()]
