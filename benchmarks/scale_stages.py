"""The stages that scale.py measures: commands of the package, and what they make."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from scale_dataset import World

COMMANDS = {
    "extract": (
        "image",
        "extract --kapture-root {root}/mapping --extractor exact --gpu -1 "
        "--exact-keypoints {keypoints} --exact-dim {dim} {store} --output {out}",
    ),
    "extract_query": (
        "query",
        "extract --kapture-root {root}/query --extractor exact --gpu -1 "
        "--exact-keypoints {keypoints} --exact-dim {dim} {store} --output {out}",
    ),
    "pairs": (
        "image",
        "pairs --mapping {root}/mapping --method sequential --overlap 3 "
        "--max-interval 1 --output {out}/pairs.txt",
    ),
    "pairs_poses": (
        "image",
        "pairs --mapping {root}/mapping --method poses --max-distance 3.5 "
        "--output {out}/pairs.txt",
    ),
    "match": (
        "pair",
        "match --features {root}/extract --pairs {root}/pairs/pairs.txt --gpu -1 "
        "--min-similarity 0.9 {store} --output {out}",
    ),
    "verify": (
        "pair",
        "verify --mapping {root}/mapping --features {root}/extract --matches "
        "{root}/match --pairs {root}/pairs/pairs.txt --database {out}/map.db {store} "
        "--output {out}",
    ),
    "map": (
        "image",
        "map --mapping {root}/mapping --features {root}/extract --database "
        "{root}/verify/map.db --output {out}/map",
    ),
    "pairs_local": (
        "image",
        "pairs --mapping {root}/mapping --query {root}/query --features "
        "{root}/extract {root}/extract_query --method local --top-k 3 {store} "
        "--output {out}/pairs.txt",
    ),
    "match_query": (
        "query pair",
        "match --features {root}/extract {root}/extract_query --pairs "
        "{root}/pairs_query.txt --gpu -1 --min-similarity 0.9 {store} --output {out}",
    ),
    "localize": (
        "query",
        "localize --map {root}/map/map --query {root}/query --features {root}/extract "
        "{root}/extract_query --pairs {root}/pairs_query.txt --matches "
        "{root}/match_query --output {out}/localized",
    ),
    "export": (
        "image",
        "export --kapture-root {root}/extract --verified {root}/verify --to colmap "
        "--output {out}/colmap",
    ),
}
"""Of each stage, in an order in which they can run: what it processes, and its command.

``root`` has the datasets and the folders of the stages before, ``out`` is its own."""
ALONE = ("map", "export")
"""Stages without --workers."""
SLICED = ("extract", "match", "verify", "localize")
"""Stages that --slices compares."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the outputs of all stages, and how they are run.

    Attributes:
        keypoints: of an image, a multiple of 4.
        dim: values of a descriptor.
        store: of features and matches; None is the default of the commands.
        workers: of each command.
    """

    keypoints: int = 64
    dim: int = 32
    store: str | None = None
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage at a size.

    Attributes:
        name: a key of COMMANDS.
        unit: what it processes, in the singular.
        items: how many of these.
        module: of the command, below ``r2d2_kapture.cli``.
        arguments: of the command.
        folder: has all that it makes, and nothing else.
        tables: of the dataset that the folder becomes; None for none.
    """

    name: str
    unit: str
    items: int
    module: str
    arguments: tuple[str, ...]
    folder: Path
    tables: Path | None

    @property
    def command(self) -> list[str]:
        """What Python runs."""
        return ["-m", f"r2d2_kapture.cli.{self.module}", *self.arguments]

    def clear(self) -> None:
        """Remove what an earlier run made."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.tables is not None:
            (self.folder / "sensors").symlink_to(self.tables.resolve())

    def files(self) -> int:
        """Number of files that it made."""
        return sum(len(names) for _, _, names in os.walk(self.folder))


def stages(
    world: World, settings: Settings, root: Path, out: Path | None = None
) -> dict[str, Stage]:
    """All stages by name.

    Args:
        world: the images.
        settings: of all.
        root: folder of the datasets, and of the stages that others need.
        out: folder for the folders of the stages; by default the root.
    """
    counts = {
        "image": world.images,
        "query": sum(1 for _ in world.queries()),
        "pair": world.pair_count,
        "query pair": sum(1 for _ in world.query_pairs()),
    }
    store = "" if settings.store is None else f"--store {settings.store}"
    found = {}
    for name, (unit, command) in COMMANDS.items():
        folder = (out or root) / name
        values = dataclasses.asdict(settings) | {"root": root, "out": folder}
        if name not in ALONE:
            command += f" --workers {settings.workers}"
        module, *words = command.replace("{store}", store).split()
        arguments = [*(word.format(**values) for word in words), "--quiet"]
        found[name] = Stage(
            name=name,
            unit=unit,
            items=counts[unit],
            module=module,
            arguments=tuple(arguments),
            folder=folder,
            tables=root / "mapping" / "sensors" if name == "extract" else None,
        )
    return found
