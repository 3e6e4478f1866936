"""Parts that other packages register, found by name through entry points."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from r2d2_kapture.errors import ConfigError


def plugin_names(group: str) -> list[str]:
    """What other packages registered, sorted."""
    return sorted(entry_points(group=group).names)


def load_plugin(group: str, name: str, own: Iterable[str], flag: str) -> Any:
    """Import what a package registered.

    Args:
        group: of entry points, such as ``r2d2_kapture.matchers``.
        name: of the entry point.
        own: names of what comes with this package, for the error.
        flag: that asked for it, for the error.

    Raises:
        ConfigError: there is none of the name, or it cannot be imported.
    """
    found = entry_points(group=group)
    if name not in found.names:
        known = ", ".join((*own, *plugin_names(group)))
        raise ConfigError(f"{flag} {name}: no such name, expected one of {known}")
    try:
        return found[name].load()
    except Exception as error:  # whatever the module of another package raises
        raise ConfigError(
            f"{flag} {name}: {found[name].value} cannot be imported: {error}; mend or "
            "uninstall the package that registers it"
        ) from error
