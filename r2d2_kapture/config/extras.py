"""Optional packages, imported when requested."""

from __future__ import annotations

import importlib
from typing import Any

from r2d2_kapture.errors import ConfigError


def import_extra(module: str, extra: str, asked_by: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: to import, such as ``kornia.feature``.
        extra: of setup.cfg that installs it.
        asked_by: flag that needs it, for the error.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{asked_by}: needs the package {module.partition('.')[0]}, which is not "
            f"installed; pip install 'r2d2-kapture[{extra}]'"
        ) from error
