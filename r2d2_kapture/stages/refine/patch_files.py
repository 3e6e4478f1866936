"""Patches of reference observations on disk, one file an image, while a run lasts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.io.outputs.ledger import open_item
from r2d2_kapture.refinement.patches import Templates
from r2d2_kapture.types import IndexArray

FOLDER = ".patches"


@dataclass(frozen=True, kw_only=True)
class PatchFiles:
    """The patches of images, which are known by their positions in the list of all.

    Attributes:
        output: open folder of the refined keypoints.
    """

    output: Path

    def is_there(self, image: int) -> bool:
        """Whether the patches of an image have been cut."""
        return self._path(image).is_file()

    def write(self, image: int, templates: Templates) -> None:
        """Store the patches of an image, whole or not at all.

        Raises:
            OutputError: the file system refused.
        """
        shape = templates.pixels.shape[1:]
        rows = np.empty(
            len(templates), [("pixels", np.uint8, shape), ("zoom", np.float64)]
        )
        rows["pixels"], rows["zoom"] = templates.pixels, templates.zooms
        with open_item(self.output, self._path(image)) as file:
            np.save(file, rows)

    def read(self, image: int, rows: IndexArray) -> Templates:
        """Some patches of an image; the file is mapped, not read as a whole."""
        mapped = np.load(self._path(image), mmap_mode="r")
        found = mapped[rows]
        return Templates(pixels=found["pixels"], zooms=found["zoom"])

    def remove(self) -> None:
        """Remove the patches of all images."""
        shutil.rmtree(self.output / FOLDER, ignore_errors=True)

    def _path(self, image: int) -> Path:
        return self.output / FOLDER / f"{image}.npy"
