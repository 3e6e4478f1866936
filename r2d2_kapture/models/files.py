"""Files of checkpoints, by path or by the name of a bundled model; loads no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from r2d2_kapture.config.checks import did_you_mean
from r2d2_kapture.errors import CheckpointError

SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights.

    Attributes:
        name: the file's name without its ending, the default feature type.
        path: the file.
        sha256: of the file's bytes, hexadecimal.
    """

    name: str
    path: Path
    sha256: str

    @property
    def record(self) -> dict[str, Any]:
        """What manifests record."""
        return {"name": self.name, "sha256": self.sha256}

    @property
    def license(self) -> str | None:
        """Licence of the weights, where the file states it or is a known one."""
        return None


def sha256_of(path: Path) -> str:
    """The checksum of a file, hexadecimal.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def bundled_models() -> dict[str, Path]:
    """Name and path of every checkpoint shipped in the package."""
    return {path.stem: path for path in bundled_files(SUFFIX)}


def bundled_files(suffix: str) -> list[Path]:
    """Files of weights shipped in the package, by their ending."""
    folder = Path(str(resources.files("r2d2_kapture.models") / "weights"))
    return sorted(folder.glob(f"*{suffix}"))


def resolve_model(model: str, flag: str = "--model") -> Path:
    """Find a checkpoint by path or by the name of a bundled model.

    Args:
        model: what was asked for.
        flag: that asked for it, for the message.

    Raises:
        CheckpointError: neither exists.
    """
    try:
        path = Path(model).expanduser()
        found = "a folder" if path.is_dir() else "no such file"
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # name too long, no such user, ...
        found = " ".join(str(error).split())
    bundled = bundled_models()
    if model in bundled:
        return bundled[model]
    names = ", ".join(bundled) or "none"
    raise CheckpointError(
        f"{flag} {model}: found {found}, expected the path of a .pt, .pth or "
        f"{SUFFIX} checkpoint or the name of a bundled model ({names})"
        + did_you_mean(model, bundled)
    )
