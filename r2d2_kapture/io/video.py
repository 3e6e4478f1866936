"""Frames of a video, decoded by PyAV, which holds FFmpeg's libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.names import shown

ByteImage = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class VideoFrame:
    """A decoded frame; pixels are converted when they are asked for.

    Attributes:
        seconds: time since the first frame.
        decoded: the frame of PyAV.
        pixel_aspect: width of a stored pixel divided by its height.
    """

    seconds: float
    decoded: Any
    pixel_aspect: float = 1.0

    @property
    def gray(self) -> ByteImage:
        """(H, W) uint8 brightness, as displayed."""
        return self._upright("gray")

    @property
    def rgb(self) -> ByteImage:
        """(H, W, 3) uint8 colours, as displayed."""
        return self._upright("rgb24")

    def _upright(self, pixel_format: str) -> ByteImage:
        """Square pixels, turned as the video asks for: phones store quarter turns."""
        width = round(self.decoded.width * self.pixel_aspect)
        square = self.decoded.reformat(width=width, format=pixel_format)
        turns = round(self.decoded.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(square.to_ndarray(), turns))


@dataclass(frozen=True, kw_only=True)
class Video:
    """An open video.

    Attributes:
        path: of the file.
        seconds: its length as the file states it; None where it does not.
        pixel_aspect: width of a pixel divided by its height.
    """

    path: Path
    seconds: float | None
    pixel_aspect: float
    _container: Any

    def frames(self) -> Iterator[VideoFrame]:
        """All frames, in order of time.

        Raises:
            ImageError: a frame cannot be decoded, with the time of the last one that
                could.
        """
        stream = self._container.streams.video[0]
        first: float | None = None
        seconds = 0.0
        step = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        av = _library()
        try:
            for decoded in self._container.decode(stream):
                if first is None:
                    first = decoded.time or 0.0
                elif decoded.time is None:
                    seconds += step
                else:
                    seconds = max(decoded.time - first, seconds)
                yield VideoFrame(
                    seconds=seconds, decoded=decoded, pixel_aspect=self.pixel_aspect
                )
        except av.error.FFmpegError as error:
            raise ImageError(
                f"{self.path}: cannot be decoded after {seconds:.1f} s: "
                f"{_reason(error)}"
            ) from error


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video for one pass over its frames.

    Raises:
        ConfigError: PyAV is not installed.
        ImageError: no such file, or it is not a video.
    """
    av = _library()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ImageError(f"{path}: found {found}, expected a video")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(
            f"{path}: found no video that FFmpeg reads ({_reason(error)}); is the file "
            "complete?"
        ) from error
    with container:
        if not container.streams.video:
            raise ImageError(f"{path}: found no pictures in it, expected a video")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        length = container.duration
        yield Video(
            path=path,
            seconds=None if length is None else length / av.time_base,
            pixel_aspect=float(stream.sample_aspect_ratio or 1),
            _container=container,
        )


def _library() -> Any:
    return import_extra("av", "video", "--video")


def _reason(error: BaseException) -> str:
    return shown(str(getattr(error, "strerror", None) or error))
