"""Decoded files in memory, and files that have gone since training began."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.training.pairs import RGBArray
from r2d2_kapture.training.views import Picture

ReadImage = Callable[[Path], RGBArray]
"""Decodes a file to (H, W, 3) uint8 RGB, or raises ImageError."""
ReadSize = Callable[[Path], tuple[int, int]]
"""Reads the (W, H) of a file, or raises ImageError."""

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


class Absences:
    """Which of some items were met unusable, in any worker process.

    Args:
        names: of the items.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        # in shared memory, so that the trainer sees what its workers met
        self._gone = torch.zeros(len(names), dtype=torch.bool)
        self._gone.share_memory_()  # type: ignore[no-untyped-call]

    def note(self, index: int) -> None:
        """Item ``index`` is unusable."""
        self._gone[index] = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the items noted, in order."""
        return tuple(name for name, gone in zip(self._names, self._gone) if gone)


class FileSource:
    """What the sources of pairs have in common that read files.

    Args:
        name: of the source, as reported.
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
        self._name = name
        self._count = count
        self._absences = Absences(files)
        self._config = config
        self._load = load

    @property
    def name(self) -> str:
        """Name of the source, as reported."""
        return self._name

    def __len__(self) -> int:
        return self._count

    @property
    def gone(self) -> tuple[str, ...]:
        """What was met unusable in training, in any worker."""
        return self._absences.names


def _shrunk(pixels: RGBArray, max_side: int) -> RGBArray:
    factor = max_side / min(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (round(side * factor) for side in pixels.shape[:2])
    shrunk = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(shrunk)
