"""Which images share a camera."""

from __future__ import annotations

from typing import Literal

CameraMode = Literal["auto", "single", "per-folder", "per-image"]
