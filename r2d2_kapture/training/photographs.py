"""Synthetic pairs from photographs: a picture and its random homography."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.training.loading import FileSource, PictureLoader, ReadSize
from r2d2_kapture.training.pairs import RawPair
from r2d2_kapture.training.transforms import random_pair, strength_at
from r2d2_kapture.training.views import Picture
from r2d2_kapture.types import Failure


def usable_photographs(
    paths: Sequence[Path], read_size: ReadSize, min_side: int
) -> tuple[list[Path], tuple[Failure, ...]]:
    """Separate the photographs to train on from those that are unreadable or tiny.

    Args:
        paths: of image files.
        read_size: looks at the header only.
        min_side: least shorter side in pixels.

    Returns:
        The usable ones in order, and the others with the reason of each.
    """
    usable: list[Path] = []
    skipped: list[Failure] = []
    for path in paths:
        try:
            width, height = read_size(path)
        except ImageError as error:
            skipped.append(Failure(name=str(path), reason=str(error)))
            continue
        if min(width, height) < min_side:
            reason = f"found {width} x {height} pixels, expected at least {min_side}"
            skipped.append(Failure(name=str(path), reason=reason))
        else:
            usable.append(path)
    return usable, tuple(skipped)


class PhotographSource(FileSource):
    """Synthetic pairs, one photograph each.

    A photograph that has disappeared or become unreadable since the start is replaced
    by the next one that is there, and counted.

    Args:
        name: of the source, as reported.
        paths: of photographs.
        config: of the pairs.
        load: decodes them.

    Raises:
        DatasetError: no photograph.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], config: PairConfig, load: PictureLoader
    ) -> None:
        if not paths:
            raise DatasetError(
                f"{name}: found no photograph to train on, expected readable images "
                f"of at least {config.crop_size} pixels a side"
            )
        super().__init__(name, len(paths), list(map(str, paths)), config, load)
        self._paths = tuple(paths)

    def pair(self, index: int, rng: np.random.Generator, difficulty: float) -> RawPair:
        """Make a pair of photograph ``index``, or of the next one that is there.

        Raises:
            DatasetError: none is left.
        """
        path, picture = self._picture(index)
        return random_pair(
            str(path),
            (picture, picture),
            None,
            self._config,
            strength_at(self._config, difficulty),
            rng,
        )

    def _picture(self, index: int) -> tuple[Path, Picture]:
        for step in range(len(self._paths)):
            number = (index + step) % len(self._paths)
            path = self._paths[number]
            try:
                picture = self._load(path)
            except ImageError:
                self._absences.note(number)
                continue
            if min(picture.size) >= self._config.crop_size:
                return path, picture
            self._absences.note(number)
        raise DatasetError(
            f"{self._name}: all {len(self._paths)} photographs have become unreadable "
            "since the start; put them back and resume"
        )
