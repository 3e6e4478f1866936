"""Known benchmarks: how scenes are found in the folder that their authors give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.types import some_names

RELEASE = "release"
"""A folder that does not name a scene, but the two above it do."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The layout of a benchmark.

    Attributes:
        title: as its authors call it.
        scene: pattern of a file or folder that every scene has.
        places: patterns of folders, below the dataset's, that may be scenes; an empty
            one is that folder itself.
        layout: what a dataset consists of, for messages.
        submitted: whether the poses of all scenes are handed in as one file.
    """

    title: str
    scene: str
    places: tuple[str, ...]
    layout: str
    submitted: bool = True

    def find(self, dataset: Path, chosen: Sequence[str] = ()) -> dict[str, Path]:
        """The folders of scenes by name, in order of names.

        Args:
            dataset: the folder of the dataset, or of a scene of it.
            chosen: names of scenes; empty takes all.

        Raises:
            DatasetError: there is none.
            ConfigError: a chosen one is not there.
        """
        # readers look beside a scene and above it, and "." has no name
        root = Path(os.path.abspath(dataset))
        folders = {
            path
            for place in self.places
            for path in (root.glob(place) if place else [root])
            if path.is_dir() and any(path.glob(self.scene))
        }
        if not folders:
            raise DatasetError(
                f"{dataset}: found no {self.scene}, expected {self.title}: "
                f"{self.layout}"
            )
        named = {path: _name(path) for path in folders}
        if len(set(named.values())) < len(named):
            named = {path: f"{_name(path.parent)}_{_name(path)}" for path in folders}
        scenes = {name: path for path, name in named.items()}
        unknown = sorted(set(chosen) - scenes.keys())
        require(
            not unknown,
            f"--scenes {' '.join(unknown)}: found {some_names(sorted(scenes))} in "
            f"{dataset}, expected names among these",
        )
        return {n: p for n, p in sorted(scenes.items()) if n in (chosen or scenes)}


def _name(path: Path) -> str:
    path = path.resolve()
    if path.name != RELEASE:
        return path.name
    return f"{path.parents[1].name}_{path.parent.name}"
