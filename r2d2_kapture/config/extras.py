"""Optional packages, imported when requested."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

from r2d2_kapture.errors import ConfigError


def import_extra(module: str, extra: str, asked_by: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: to import, such as ``kornia.feature``.
        extra: of setup.cfg that installs it.
        asked_by: flag that needs it, for the error.

    Raises:
        ConfigError: it, or a package that it needs, is not installed or is broken.
    """
    try:
        with _hidden("openvino_telemetry"):
            return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{asked_by}: needs the package {package}, {_obstacle(package, error)}; "
            f"pip install 'r2d2-kapture[{extra}]'"
        ) from error


def _obstacle(package: str, error: ImportError) -> str:
    """Why a package was not imported: it is missing, or one that it needs is."""
    if not isinstance(error, ModuleNotFoundError):
        return f"which cannot be imported: {' '.join(str(error).split())}"
    missing = (error.name or package).partition(".")[0]
    needed = "" if missing == package else f"which needs {missing}, "
    return f"{needed}which is not installed"


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Hide a module from imports: with its telemetry, OpenVINO sends each import of it
    to Google Analytics, in a process of its own."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = cast(ModuleType, None)
    try:
        yield
    finally:
        del sys.modules[module]
