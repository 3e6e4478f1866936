"""What is recorded of the frames of a video, beside the dataset's tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture

from r2d2_kapture.config.photographs import CameraConfig
from r2d2_kapture.io.colmap.image_folder import (
    camera_without_calibration,
    check_given,
)
from r2d2_kapture.io.outputs.atomic import read_json

FOLDER = "videos"
KEPT, BLURRED, DOUBLED = "kept", "blurred", "doubled"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The sharpest frame of an interval, and whether it was kept.

    Attributes:
        milliseconds: since the first frame of the video.
        sharpness: see ``core.frame_choice.sharpness``.
        motion: since the last frame that was kept, in percent of the longer side; None
            for the first, and for blurred ones.
        verdict: KEPT, BLURRED or DOUBLED.
    """

    milliseconds: int
    sharpness: float
    motion: float | None = None
    verdict: str = KEPT


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The frames of a video.

    Attributes:
        name: of the video, which its camera and folder share.
        sha256: of the file.
        suffix: of the images.
        size: (W, H) of its frames in pixels.
        frames: in order of time.
        warnings: sentences on the video.
    """

    name: str
    sha256: str
    suffix: str
    size: tuple[int, int]
    frames: tuple[Frame, ...]
    warnings: tuple[str, ...]

    def image(self, frame: Frame) -> str:
        """Name of the image of a frame in the dataset."""
        return image_name(self.name, frame, self.suffix)

    @property
    def kept(self) -> list[Frame]:
        """The frames that are in the dataset."""
        return [frame for frame in self.frames if frame.verdict == KEPT]

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return dataclasses.asdict(self)


def image_name(video: str, frame: Frame, suffix: str) -> str:
    """Name of an image: the folder of its video, and its time."""
    return f"{video}/frame_{frame.milliseconds:09d}.{suffix}"


def record_path(root: Path, video: str) -> Path:
    """Where the record of a video lies in a dataset."""
    return root / FOLDER / f"{video}.json"


def read_record(path: Path) -> Taken | None:
    """Read the record of a video; None where there is none or it is broken."""
    values: Mapping[str, Any] = read_json(path)
    try:
        width, height = values["size"]
        return Taken(
            name=str(values["name"]),
            sha256=str(values["sha256"]),
            suffix=str(values["suffix"]),
            size=(int(width), int(height)),
            frames=tuple(Frame(**frame) for frame in values["frames"]),
            warnings=tuple(map(str, values["warnings"])),
        )
    except (KeyError, TypeError, ValueError):
        return None


def describe(videos: Sequence[Taken], config: CameraConfig) -> kapture.Kapture:
    """Sensors and records of videos, each of which is a camera.

    Raises:
        ConfigError: known parameters, and videos of several sizes or another one.
    """
    if config.params:
        check_given({video.size for video in videos}, config)
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    for video in videos:
        sensors[video.name] = camera_without_calibration(video.size, config)
        for frame in video.kept:
            records[frame.milliseconds, video.name] = video.image(frame)
    return kapture.Kapture(sensors=sensors, records_camera=records)
