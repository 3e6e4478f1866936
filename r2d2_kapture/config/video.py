"""Settings of the frames that are taken from a video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import bounded, require
from r2d2_kapture.config.photographs import CameraConfig

INTERVAL = re.compile(r"(\d+\.?\d*|\.\d+)(ms|s)?")


@dataclass(frozen=True, kw_only=True)
class VideoConfig(CameraConfig):
    """Settings of the frames that are taken from a video.

    Attributes:
        every: seconds of the video of which the sharpest frame is taken, such as 0.5,
            0.5s or 500ms; 0 looks at every frame.
        min_sharpness: a frame whose sharpness is below this share of the median of its
            neighbours (five on each side) is left out as blurred; 0 keeps all.
        min_motion: a frame that moved less than this since the last one kept is left
            out as doubled, in percent of the longer side of the image; 0 keeps all.
        image_format: of the frames: ``jpg`` of quality 95, or ``png``.
    """

    every: float | str = 0.5
    min_sharpness: float = bounded(0.5, at_least=0, at_most=1)
    min_motion: float = bounded(1.0, at_least=0)
    image_format: Literal["jpg", "png"] = "jpg"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            INTERVAL.fullmatch(str(self.every)) is not None,
            f"--every: found {self.every}, expected seconds, 0 or more, such as 0.5, "
            "0.5s or 500ms",
        )

    @property
    def interval(self) -> float:
        """Seconds of the video of which one frame is taken."""
        found = INTERVAL.fullmatch(str(self.every))
        number, unit = found.groups() if found else ("0", None)
        return float(number) / (1000 if unit == "ms" else 1)
