"""The manifest of an output: the weights, settings and inputs that made it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import r2d2_kapture
from r2d2_kapture.errors import FeatureFormatError

FILE_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What decides the numbers of an output.

    Attributes:
        model: name, architecture and SHA-256 of the weights.
        settings: resolved settings that change the output.
        versions: of the packages that computed it; for the record, not compared.
        inputs: path of each input (empty if it may come from anywhere) and digest of
            its content, by name. What was made of other content of the same path is
            outdated; content of another path is a difference.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return {
            "format": "r2d2_kapture manifest 1",
            "model": self.model,
            "settings": self.settings,
            "versions": self.versions,
            **({"inputs": self.inputs} if self.inputs else {}),
        }

    def to_text(self) -> str:
        """The manifest on one line, for files that hold it inside."""
        return json_text(self.to_json())

    def differences(self, other: Manifest) -> list[str]:
        """What ``other`` was made with that differs, as ``name: theirs, not ours``."""
        ours, theirs = {**self.settings}, {**other.settings}
        if self.model.get("sha256") != other.model.get("sha256"):
            ours["--model"], theirs["--model"] = map(
                _weights, (self.model, other.model)
            )
        for name, (path, digest) in self.inputs.items():
            their_path, their_digest = other.inputs.get(name, ("none", ""))
            if their_digest != digest:
                ours[name], theirs[name] = path, their_path
        return differences(theirs, ours)

    def has_inputs_of(self, other: Manifest) -> bool:
        """Whether ``other`` was made of the same content."""
        return {name: digest for name, (_, digest) in self.inputs.items()} == {
            name: digest for name, (_, digest) in other.inputs.items()
        }


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Settings that differ, as ``name: theirs, not ours``, in order of names; only the
    extractor where that does, since each has settings of its own. Those that are not
    there, or None, are ``default``."""
    differing = [
        key
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    if "extractor" in differing and "extractor" in ours.keys() & theirs.keys():
        differing = ["extractor"]
    return [
        f"{key}: {_shown(theirs.get(key))}, not {_shown(ours.get(key))}"
        for key in differing
    ]


def _weights(model: Mapping[str, Any]) -> str:
    return f"{model.get('name')} (SHA-256 {str(model.get('sha256'))[:12]})"


def _shown(value: Any) -> str:
    return "default" if value is None else str(value)


def json_text(content: dict[str, Any]) -> str:
    """One line of JSON; bytes of names that are not UTF-8 become JSON's own escapes."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def package_versions() -> dict[str, str]:
    """Versions of this package and of those that decide the numbers."""
    names = ("torch", "numpy", "pillow", "kapture")
    return {
        "r2d2_kapture": r2d2_kapture.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def parse_manifest(text: str, source: str) -> Manifest:
    """Read a manifest from JSON text.

    Raises:
        FeatureFormatError: the text is not a manifest; ``source`` names it.
    """
    try:
        content = json.loads(text)
        model, settings = dict(content["model"]), dict(content["settings"])
        versions = {str(k): str(v) for k, v in dict(content["versions"]).items()}
        found = dict(content.get("inputs", {})).items()
        inputs = {str(name): (str(path), str(digest)) for name, (path, digest) in found}
    except (ValueError, TypeError, KeyError) as error:
        raise FeatureFormatError(
            f"{source}: not a manifest of r2d2_kapture; remove it, or redo with --force"
        ) from error
    return Manifest(model=model, settings=settings, versions=versions, inputs=inputs)


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest file; None where there is none.

    Raises:
        FeatureFormatError: the file is not a manifest.
    """
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""
    return parse_manifest(text, str(path))
