"""Masks of images: folders of pictures whose black pixels hold no keypoints."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import BoolArray, read_mask
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.types import some_names

SUFFIX = ".png"


@dataclass(frozen=True, kw_only=True)
class MaskFolder:
    """Masks by the names of their images, as COLMAP has them.

    The mask of ``sub/a.jpg`` is ``sub/a.jpg.png``, else ``sub/a.png``; the latter not
    where images and masks share a folder, in which it would be an image.

    Attributes:
        folder: of the masks.
    """

    folder: Path

    def find(self, name: str, image: Path) -> Path | None:
        """The mask of an image, or None.

        Args:
            name: of the image.
            image: its file.
        """
        place = self.folder / name
        paths = [place.with_name(place.name + SUFFIX)]
        if os.path.realpath(place.parent) != os.path.realpath(image.parent):
            paths.append(place.with_suffix(SUFFIX))
        return next(filter(Path.is_file, paths), None)

    def files(self, names: Iterable[str]) -> Iterator[str]:
        """Where the masks of images are, or would be."""
        for name in names:
            place = os.path.join(self.folder, name)
            yield place + SUFFIX
            yield os.path.splitext(place)[0] + SUFFIX

    def digest(self, name: str, image: Path) -> str:
        """SHA-256 of the mask of an image; empty where there is none.

        Raises:
            ImageError: it cannot be read.
        """
        path = self.find(name, image)
        try:
            return "" if path is None else sha256_of(path)
        except OSError as error:
            raise ImageError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, name: str, image: Path, size: tuple[int, int]) -> BoolArray | None:
        """Which pixels of an image may hold keypoints: (H, W); None without a mask.

        Args:
            name: of the image.
            image: its file.
            size: (W, H) of the image in pixels as stored.

        Raises:
            ImageError: the mask is broken, or of another size.
        """
        path = self.find(name, image)
        if path is None:
            return None
        mask = read_mask(path)
        height, width = mask.shape
        if (width, height) != size:
            raise ImageError(
                f"{path}: found a mask of {width} x {height} pixels, expected the "
                f"{size[0]} x {size[1]} of its image as stored"
            )
        return mask

    def warnings(self, images: Mapping[str, Path]) -> tuple[str, ...]:
        """What a report says of images without a mask, of files by name."""
        without = [name for name, path in images.items() if not self.find(name, path)]
        if not without:
            return ()
        names = [shown(name) for name in without]
        return (
            f"{self.folder}: found no mask of {len(names)} of {len(images)} images: "
            f"{some_names(names)}; expected '{names[0]}{SUFFIX}' and the like",
        )


def open_masks(folder: Path | None) -> MaskFolder | None:
    """The masks of a folder; None for none.

    Raises:
        DatasetError: there is no such folder.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: found no such folder, expected a folder of masks"
        )
    return MaskFolder(folder=folder)
