"""What a run has found of each photograph, on disk while the run lasts.

A run that was stopped goes on with it; memory holds that of a few photographs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from r2d2_kapture.io.outputs.atomic import read_json, write_json_atomic
from r2d2_kapture.io.outputs.image_records import (
    ImageRecord,
    record_from_json,
    stamp_of,
)
from r2d2_kapture.io.outputs.ledger import open_item
from r2d2_kapture.refinement.patches import Templates
from r2d2_kapture.types import IndexArray

FOLDER = ".scratch"


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What became of the keypoints of a photograph, see refinement.Registration.

    Attributes:
        numbers: (K,) of the keypoints that were registered.
        steps: (K, 2) float64 pixels, 0 where refused.
        before, after: (K,) float32 similarity.
        outcomes: (K,) int8.
        failure: why the photograph cannot be read; empty if it can.
        record: of its file; None if it cannot be read.
    """

    numbers: IndexArray
    steps: npt.NDArray[np.float64]
    before: npt.NDArray[np.float32]
    after: npt.NDArray[np.float32]
    outcomes: npt.NDArray[np.int8]
    failure: str = ""
    record: ImageRecord | None = None


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """Files of photographs, which are known by their positions in the list of all.

    Attributes:
        output: open folder of the refined keypoints.
        shared: folder for the patches of references, which several runs write at once;
            None for that of all files.
    """

    output: Path
    shared: Path | None = None

    def begin(self, photographs: Iterable[Path]) -> None:
        """Remove what an earlier run found in other photographs than these.

        Raises:
            OutputError: the file system refused.
        """
        of = {"photographs": digest_of_files(photographs)}
        path = self.output / FOLDER / "of.json"
        if read_json(path) != of:
            self.remove()
            write_json_atomic(path, of)

    def has_templates(self, image: int) -> bool:
        """Whether the patches of the references in a photograph are there."""
        return self._path(image, "patches").is_file()

    def write_templates(self, image: int, templates: Templates) -> None:
        """Store the patches of the references in a photograph.

        Raises:
            OutputError: the file system refused.
        """
        shape = templates.pixels.shape[1:]
        fields = [("pixels", np.uint8, shape), ("zoom", np.float64)]
        rows = np.empty(len(templates), fields)
        rows["pixels"], rows["zoom"] = templates.pixels, templates.zooms
        self._write(image, "patches", lambda file: np.save(file, rows))

    def read_templates(self, image: int, rows: IndexArray) -> Templates:
        """Some of the patches; the file is mapped, not read as a whole."""
        found = np.load(self._path(image, "patches"), mmap_mode="r")[rows]
        return Templates(pixels=found["pixels"], zooms=found["zoom"])

    def has_found(self, image: int) -> bool:
        """Whether a photograph has been registered."""
        return self._path(image, "found").is_file()

    def write_found(self, image: int, found: Found) -> None:
        """Store what became of the keypoints of a photograph.

        Raises:
            OutputError: the file system refused.
        """
        values = vars(found) | {
            "record": json.dumps(found.record and dataclasses.asdict(found.record))
        }
        self._write(image, "found", lambda file: np.savez(file, **values))

    def read_found(self, image: int) -> Found:
        """What became of the keypoints of a photograph."""
        with np.load(self._path(image, "found")) as values:
            arrays = {name: values[name] for name in values.files}
        record = record_from_json(json.loads(str(arrays.pop("record"))))
        failure = str(arrays.pop("failure"))
        return Found(**arrays, failure=failure, record=record)

    def remove(self) -> None:
        """Remove the files of all photographs."""
        shutil.rmtree(self.output / FOLDER, ignore_errors=True)

    def _write(self, image: int, kind: str, save: Callable[[BinaryIO], None]) -> None:
        with open_item(self._root(kind), self._path(image, kind)) as file:
            save(file)

    def _path(self, image: int, kind: str) -> Path:
        return self._root(kind) / FOLDER / f"{image}.{kind}"

    def _root(self, kind: str) -> Path:
        return self.output if self.shared is None or kind == "found" else self.shared


def digest_of_files(photographs: Iterable[Path]) -> str:
    """What changes with any of the files, which are not read."""
    digest = hashlib.sha256()
    for path in photographs:
        digest.update(_stamp(path).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    """What changes with a file."""
    try:
        return f"{stamp_of(path)}\n"
    except OSError:
        return f"{path} is not there\n"
