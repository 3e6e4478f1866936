"""What reconstructions are imported from."""

from __future__ import annotations

from typing import Literal

ImportSource = Literal["colmap", "nvm", "bundler", "openmvg", "opensfm"]
