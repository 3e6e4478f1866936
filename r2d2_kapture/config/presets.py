"""Presets: YAML files of settings, by name in configs/ or by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from r2d2_kapture.config.checks import did_you_mean
from r2d2_kapture.errors import ConfigError

EXTRACTION = "extract"
"""Folder of configs/ with the presets of ``--preset``."""


def preset_path(name: str, folder: str, flag: str = "preset") -> Path:
    """Find a preset by path or by name.

    Args:
        name: path of a YAML file, or name of a preset.
        folder: of the presets in configs/.
        flag: that selects it, for the message.

    Raises:
        ConfigError: it is neither a file nor a preset.
    """
    if Path(name).is_file():
        return Path(name)
    presets = _presets(folder)
    if name not in presets:
        of_extraction = name in _presets(EXTRACTION)
        hint = f"it is one of extraction: --preset {name}; " if of_extraction else ""
        raise ConfigError(
            f"{flag} {name}: no such file, and no preset; {hint}"
            f"presets: {', '.join(sorted(presets)) or 'none'}"
            f"{did_you_mean(name, presets)}"
        )
    return presets[name]


def _presets(folder: str) -> dict[str, Path]:
    package = Path(__file__).resolve().parents[1]
    # installed next to the package's modules, or at the top of a checkout
    roots = [package / "configs" / folder, package.parent / "configs" / folder]
    return {path.stem: path for root in roots for path in root.glob("*.yaml")}


def read_preset(name: str, folder: str, flag: str = "preset") -> dict[str, Any]:
    """The settings of a preset, see ``preset_path``.

    Raises:
        ConfigError: it is missing, or is not YAML of settings.
    """
    path = preset_path(name, folder, flag)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read as YAML: {reason}") from error
    if not isinstance(values, dict) or not all(
        isinstance(name, str) for name in values
    ):
        raise ConfigError(f"{path}: expected 'name: value' on each line")
    return values
