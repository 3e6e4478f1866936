"""Decoded files in memory, and sources of pairs whose files may disappear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.training.pairs import RawPair, RGBArray
from r2d2_kapture.training.views import Picture

ReadImage = Callable[[Path], RGBArray]
"""Decodes a file to (H, W, 3) uint8 RGB, or raises ImageError."""

GIB = 2**30
LEVELS_SHARE = 4 / 3
"""Bytes of a picture and all its halvings, in bytes of the picture."""


class MemoryCache:
    """Keeps what was loaded while it fits into a share of the memory.

    Nothing is ever thrown out: all items are equally likely to be needed again. Each
    worker process has its own copy and takes its share of the limit.

    Args:
        limit_gib: of all workers together.
    """

    def __init__(self, limit_gib: float) -> None:
        self._limit = limit_gib * GIB
        self._kept: dict[Hashable, Any] = {}
        self._bytes = 0.0

    def get(self, key: Hashable) -> Any | None:
        """What was kept under a key."""
        return self._kept.get(key)

    def offer(self, key: Hashable, value: Any, needed_bytes: float) -> None:
        """Keep a value if there is room."""
        worker = get_worker_info()
        share = self._limit / (worker.num_workers if worker else 1)
        if self._bytes + needed_bytes <= share:
            self._kept[key] = value
            self._bytes += needed_bytes


class PictureLoader:
    """Decodes pictures, shrinks large ones, and keeps them while there is room.

    Args:
        read: decodes a file.
        max_side: shorter side in pixels that larger pictures are shrunk to.
        cache: maybe shared with other loaders.
    """

    def __init__(self, read: ReadImage, max_side: int, cache: MemoryCache) -> None:
        self._read = read
        self._max_side = max_side
        self.cache = cache

    def __call__(self, path: Path) -> Picture:
        """The decoded picture.

        Raises:
            ImageError: it cannot be read.
        """
        kept: Picture | None = self.cache.get(path)
        if kept is not None:
            return kept
        pixels = self._read(path)
        picture = Picture(
            pixels=_shrunk(pixels, self._max_side),
            stored_size=(pixels.shape[1], pixels.shape[0]),
        )
        self.cache.offer(path, picture, picture.pixels.nbytes * LEVELS_SHARE)
        return picture


class PairSource(ABC):
    """Pairs of pictures in files.

    Attributes:
        name: of the source, as reported.

    Args:
        name: of the source.
        count: of pairs.
        files: names of what may become unusable.
        config: of the pairs.
        load: decodes pictures.
    """

    def __init__(
        self,
        name: str,
        count: int,
        files: Sequence[str],
        config: PairConfig,
        load: PictureLoader,
    ) -> None:
        self.name = name
        self._count = count
        self._files = tuple(files)
        self._config = config
        self._load = load
        # in shared memory, so that the trainer sees what its workers met
        self._unusable = torch.zeros(len(files), dtype=torch.bool)
        self._unusable.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return self._count

    @property
    def gone(self) -> tuple[str, ...]:
        """What was met unusable in training, in any worker."""
        return tuple(name for name, gone in zip(self._files, self._unusable) if gone)

    @abstractmethod
    def pair(
        self, index: int, rng: np.random.Generator, difficulty: float
    ) -> RawPair | None:
        """Make a pair; the same arguments give the same one.

        Args:
            index: below the length.
            rng: source of everything random.
            difficulty: 0 (mild) to 1 (strong).

        Returns:
            None where the pair cannot be used.
        """


def _shrunk(pixels: RGBArray, max_side: int) -> RGBArray:
    factor = max_side / min(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (round(side * factor) for side in pixels.shape[:2])
    shrunk = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(shrunk)
