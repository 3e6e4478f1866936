"""Third-party plugins, found by name through entry points."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from r2d2_kapture.errors import ConfigError


def plugin_names(group: str) -> list[str]:
    """Names registered by other packages, sorted."""
    return sorted(entry_points(group=group).names)


def load_plugin(group: str, name: str, own: Iterable[str], flag: str) -> Any:
    """Import a plugin.

    Args:
        group: of entry points, such as ``r2d2_kapture.matchers``.
        name: of the entry point.
        own: names of this package, for the error.
        flag: that selects it, for the error.

    Raises:
        ConfigError: the name is unknown, or cannot be imported.
    """
    found = entry_points(group=group)
    if name not in found.names:
        known = ", ".join((*own, *plugin_names(group)))
        raise ConfigError(f"{flag} {name}: no such name, expected one of {known}")
    try:
        return found[name].load()
    except Exception as error:  # a third-party module may raise anything
        raise ConfigError(
            f"{flag} {name}: {found[name].value} cannot be imported: {error}; fix or "
            "uninstall the package that registers it"
        ) from error
