"""Runs of the stage that chooses pairs, for its tests."""

from __future__ import annotations

from pathlib import Path

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.stages.pairs import stage as pairs
from r2d2_kapture.types import Report

GALLERY = Path("data/virtual_gallery")
NAMES = ["a b.jpg", "sub/é à.jpg", "sub-é à.jpg", "Z.jpg", "sub/1.jpg"]
QUERIES = ["q/1 2.jpg", "q/0.jpg"]


def run(mapping: Path, output: Path, **kwargs: object) -> Report:
    """Run with settings of PairsConfig and arguments of the stage, told by name."""
    names = PairsConfig.__dataclass_fields__.keys()
    settings = {key: kwargs.pop(key) for key in list(kwargs) if key in names}
    return pairs.run(
        PairsConfig(**settings),  # type: ignore[arg-type]
        mapping=mapping,
        output=output,
        **kwargs,  # type: ignore[arg-type]
    )


def names_in(path: Path) -> list[tuple[str, str]]:
    return [pair.names for pair in read_pairs(path)]
