"""Slices of the stages of scale.py, in any order, compared with one run."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from measure import measure
from scale_dataset import World
from scale_stages import SLICED, Settings, stages

from r2d2_kapture.config.slices import ALL

OF_A_RUN = (".lock", "report.json", ".finished.json")
"""Ends of names of files that say when and how, not what."""


def compare_slices(
    world: World, settings: Settings, root: Path, count: int
) -> Iterator[tuple[str, int, list[str]]]:
    """For each stage its name, the number of files, and those that differ.

    Args:
        world: the images.
        settings: of all stages.
        root: folder of the stages, which have run.
        count: of slices.
    """
    order = list(range(1, count + 1))
    random.Random(0).shuffle(order)
    whole = stages(world, settings, root)
    sliced = stages(world, settings, root, root / f"{count}_slices")
    for name in SLICED:
        sliced[name].clear()
        for part in (*(f"{number}/{count}" for number in order), ALL):
            measure([*sliced[name].command, "--slice", part])
        one, other = (digests(of[name].folder) for of in (whole, sliced))
        unlike = [at for at in {**one, **other} if one.get(at) != other.get(at)]
        yield name, len(one), sorted(unlike)


def digests(folder: Path) -> dict[str, bytes]:
    """SHA-256 of the files below a folder, by their place in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(OF_A_RUN)
    }
