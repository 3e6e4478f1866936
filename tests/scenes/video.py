"""A walk through a rendered room as a video file, with known poses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.synthetic.dataset import arc_pose
from r2d2_kapture.synthetic.rendering import PinholeCamera, render
from r2d2_kapture.synthetic.room import textured_room

RATE = 10


def library() -> Any:
    """PyAV; the test is skipped where it is not installed."""
    return pytest.importorskip("av", reason="PyAV is not installed (extra 'video')")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Frames of a walk along an arc, ``RATE`` a second.

    Attributes:
        frames: (H, W, 3) uint8, in order.
        cam_from_world: (4, 4) of each, metres.
        still: numbers of frames that repeat the one before them.
        blurred: numbers of frames that are blurred by motion.
    """

    frames: list[np.ndarray]
    cam_from_world: list[np.ndarray]
    still: frozenset[int]
    blurred: frozenset[int]


def walk(
    camera: PinholeCamera,
    count: int,
    *,
    still: Iterable[int] = (),
    blurred: Iterable[int] = (),
    half_angle: float = 0.5,
) -> Walk:
    """Walk on an arc before a wall, standing still and shaking now and then."""
    rng = np.random.default_rng(0)
    scene = textured_room(0)
    still, blurred = frozenset(still), frozenset(blurred)
    moving = [number for number in range(count) if number not in still]
    angles = dict(zip(moving, np.linspace(-half_angle, half_angle, len(moving))))
    frames: list[np.ndarray] = []
    poses: list[np.ndarray] = []
    for number in range(count):
        if number in still:
            frames.append(frames[-1])
            poses.append(poses[-1])
            continue
        poses.append(arc_pose(rng, angles[number], 3.9, 1.5, wobble=0.0))
        image = render(scene, poses[-1], camera)
        frames.append(shaken(image) if number in blurred else image)
    return Walk(frames=frames, cam_from_world=poses, still=still, blurred=blurred)


def shaken(image: np.ndarray, width: int = 9) -> np.ndarray:
    """Motion blur along the rows, ``width`` pixels wide."""
    shifted = [np.roll(image, k - width // 2, axis=1) for k in range(width)]
    return np.mean(shifted, axis=0).round().astype(np.uint8)


def noise_frames(count: int) -> list[np.ndarray]:
    """Tiny frames without anything in common."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(count)]


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    turned: int = 0,
    pixel_aspect: Fraction | None = None,
    lossless: bool = False,
) -> None:
    """Encode frames, ``RATE`` a second.

    Args:
        path: of the file; its suffix chooses the container.
        frames: (H, W, 3) uint8 of even sizes.
        turned: degrees by which players shall turn the pictures anticlockwise.
        pixel_aspect: width of a pixel divided by its height; not kept by Matroska.
        lossless: whether colours stay as they are.
    """
    av = library()
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        codec = "ffv1" if lossless else "libx264"
        stream = container.add_stream(codec, rate=RATE)
        options = {} if lossless else {"crf": "18", "preset": "ultrafast"}
        stream.codec_context.options = options
        stream.pix_fmt = "bgr0" if lossless else "yuv420p"
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
                if pixel_aspect is not None:
                    stream.codec_context.sample_aspect_ratio = pixel_aspect
                if turned:
                    stream.set_display_rotation(turned)
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
