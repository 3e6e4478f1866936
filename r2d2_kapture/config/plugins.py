"""Doors: kinds of classes of which one is chosen by name, ours or third-party.

Third-party ones are found through entry points. Each has settings of its own, a frozen
dataclass that says its name, from which flags and YAML keys are made.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from r2d2_kapture.config.checks import did_you_mean
from r2d2_kapture.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Door:
    """The registry of one kind of classes, such as matchers.

    Attributes:
        kind: ``matcher`` or ``extractor``: the flag that chooses one, and the class
            attribute of its settings that holds its name.
        group: of entry points of other packages.
        own: settings of those of this package, and where the class is: "module:Class".
        prefixed: names of own ones whose flags begin with the name, as those of
            third-party ones do.
    """

    kind: str
    group: str
    own: Mapping[type, str]
    prefixed: Collection[str] = ()

    @property
    def places(self) -> dict[str, str]:
        """Where the classes of this package are, by name."""
        return {getattr(kind, self.kind): place for kind, place in self.own.items()}

    def settings(self) -> dict[str, type]:
        """Settings of all usable ones by name, those of this package first."""
        found = {getattr(kind, self.kind): kind for kind in self.own}
        for name in sorted(entry_points(group=self.group).names):
            with suppress(ConfigError):
                found.setdefault(name, self.settings_of(name))
        return found

    def settings_of(self, name: str) -> type:
        """The dataclass of the settings of one.

        Raises:
            ConfigError: no such name, or an unusable third-party class.
        """
        for kind in self.own:
            if getattr(kind, self.kind) == name:
                return kind
        found = self.load(name)
        settings: Any = getattr(found, "settings_class", None)
        named = is_dataclass(settings) and getattr(settings, self.kind, None) == name
        if not named or any(_lacks_default(field) for field in fields(settings)):
            raise ConfigError(
                f"--{self.kind} {name}: {found} has no settings_class that is a "
                f"dataclass with {self.kind} = '{name}' and defaults; fix or uninstall "
                "the package that registers it"
            )
        return cast(type, settings)

    def load(self, name: str) -> Any:
        """Import a class by its name.

        Raises:
            ConfigError: the name is unknown, or cannot be imported.
        """
        own = self.places
        if name in own:
            module, _, class_name = own[name].partition(":")
            return getattr(importlib.import_module(module), class_name)
        found = entry_points(group=self.group)
        if name not in found.names:
            known = [*own, *sorted(found.names)]
            raise ConfigError(
                f"--{self.kind} {name}: no such name, expected one of "
                f"{', '.join(known)}{did_you_mean(name, known)}"
            )
        try:
            return found[name].load()
        except Exception as error:  # a third-party module may raise anything
            raise ConfigError(
                f"--{self.kind} {name}: {found[name].value} cannot be imported: "
                f"{error}; fix or uninstall the package that registers it"
            ) from error

    def code(self, name: str) -> dict[str, str]:
        """What manifests record of the code of a third-party one: its package, and the
        SHA-256 of its module's file; nothing of those of this package.

        Raises:
            ConfigError: it cannot be imported.
        """
        found = entry_points(group=self.group)
        if name in self.places or name not in found.names:
            return {}
        entry = found[name]
        module = getattr(self.load(name), "__module__", entry.module)
        package = entry.dist
        shown = f"{package.name} {package.version}" if package else entry.module
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
        if file.is_file():
            shown += f" ({hashlib.sha256(file.read_bytes()).hexdigest()[:12]})"
        return {f"{self.kind} code": shown}

    def package_of(self, module: str) -> str | None:
        """The third-party package that a module belongs to, if it registers one."""
        top = module.partition(".")[0]
        for entry in entry_points(group=self.group):
            if entry.module.partition(".")[0] == top:
                return entry.dist.name if entry.dist else top
        return None

    def flags(self, name: str) -> list[str]:
        """Names of the flags of the settings of one, in their order."""
        prefix = self.prefix(name)
        return [prefix + field.name for field in fields(self.settings_of(name))]

    def prefix(self, name: str) -> str:
        """What the flags of one begin with."""
        return f"{name}_" if name in self.prefixed or name not in self.places else ""


def entry_points(group: str) -> metadata.EntryPoints:
    """The entry points of a group, which are looked up once: it takes a while."""
    return _entry_points(group, tuple(sys.path))


@lru_cache
def _entry_points(group: str, path: tuple[str, ...]) -> metadata.EntryPoints:
    return metadata.entry_points(group=group)


def _lacks_default(field: Field[Any]) -> bool:
    return field.default is MISSING
