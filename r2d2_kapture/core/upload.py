"""Copies of images to the device, in parallel with the passes of earlier images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Masks = Sequence[npt.NDArray[np.bool_] | None]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A batch on its way to the device.

    Attributes:
        pixels: (B, H, W, 3) uint8.
        arrived: on a GPU, when they are there.
        image_size: (W, H) of the images as stored, in pixels.
        keep: (H, W) bool of each image as stored, where keypoints may be; None is
            everywhere.
    """

    pixels: Tensor
    arrived: torch.cuda.Event | None
    image_size: tuple[int, int]
    keep: tuple[Tensor | None, ...]

    def wait(self) -> Tensor:
        """The pixels, for use on the current stream."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(self.pixels.device)
            stream.wait_event(self.arrived)
            self.pixels.record_stream(stream)
        return self.pixels


class Uploader:
    """Copies images to a device, on a GPU on a stream of its own.

    Args:
        device: where they go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )

    def __call__(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        masks: Masks,
        image_size: tuple[int, int] | None = None,
    ) -> Upload:
        """Begin to copy images of equal size.

        Args:
            images: (H, W, 3) uint8 RGB each.
            masks: (H, W) bool of each image as stored, or None; empty for no masks.
            image_size: (W, H) as stored, where that is another one.
        """
        keep = tuple(
            None if mask is None else torch.from_numpy(mask).to(self._device)
            for mask in masks or [None] * len(images)
        )
        height, width = images[0].shape[:2]
        size = image_size or (width, height)
        if len(images) == 1:
            single = np.require(images[0], requirements=["C", "W"])
            pixels = torch.from_numpy(single)[None]
        else:
            pixels = torch.from_numpy(np.stack(images))
        if self._copies is None:
            return Upload(pixels=pixels, arrived=None, image_size=size, keep=keep)
        with torch.cuda.stream(self._copies):
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
            arrived = self._copies.record_event()
            return Upload(pixels=pixels, arrived=arrived, image_size=size, keep=keep)
