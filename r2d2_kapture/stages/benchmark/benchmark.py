"""What a benchmark is: items, what is measured on each, and how results are kept.

A new benchmark is one file: ``open_benchmark``, which gives a Benchmark and whose
keyword arguments are flags of its command, and ``PRESENTATION`` of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from r2d2_kapture.evaluation.matched_points import MatchedPoints
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.matching.matcher import Matcher
from r2d2_kapture.stages.benchmark.presentation import Presentation
from r2d2_kapture.types import Failure, LocalFeatures

Subject = TypeVar("Subject")
Result = TypeVar("Result")
LoadFeatures = Callable[[Path], LocalFeatures]

CORRECT_PIXELS = 3.0
"""Error in pixels up to which a match is drawn as correct, and by which pairs are
ranked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Item(Generic[Subject]):
    """A part of a benchmark that is measured and stored as a whole.

    Attributes:
        name: of its file of results, without the suffix.
        images: that are matched.
        truth: their true geometry as bytes, for the digest of the inputs.
        size: how many units of the report it counts.
        subject: what is measured.
    """

    name: str
    images: tuple[Path, ...]
    truth: bytes
    size: int = 1
    subject: Subject


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark(Generic[Subject, Result]):
    """Items, what is measured on each, and how results are kept.

    Attributes:
        presentation: of its results, which has its name.
        unit: of the report, in the singular.
        items: in order.
        root: folder that names of images are relative to.
        matcher: on the CPU.
        protocol: settings of what is measured, for the manifest.
        details: numbers of the report, after so many pairs.
        failed: what is left out of the items, with the reason.
        warnings: on the items, for the report.
        keeps_features: whether they are stored, since items share images.
        measure: gives the results of the pairs of an item, and what failed, without
            which the item is stored; may raise FeatureFormatError or ImageError.
        item_suffix: of the file of results of an item.
        load_item: reads such a file, if it is of the inputs with a digest.
        save_item: writes one.
        save_run: writes the results of all items, with the label and the manifest.
        worst_pairs: number of pairs that are drawn.
        rank: sorts results, the worst first.
        shown: names of the two images of a result, as text, and their files.
        matched: its matches; may raise FeatureFormatError or ImageError. Features that
            are not kept cannot be loaded.
    """

    presentation: Presentation[Any]
    unit: str
    items: tuple[Item[Subject], ...]
    root: Path
    matcher: Matcher
    protocol: dict[str, Any]
    details: Callable[[int], dict[str, Any]]
    failed: tuple[Failure, ...]
    warnings: tuple[str, ...]
    keeps_features: bool
    measure: Callable[[Subject, LoadFeatures], tuple[list[Result], list[Failure]]]
    item_suffix: str
    load_item: Callable[[Path, str], list[Result] | None]
    save_item: Callable[[Path, Sequence[Result], str], None]
    save_run: Callable[[Path, str, Manifest, Sequence[Result]], None]
    worst_pairs: int
    rank: Callable[[Result], tuple[float, str, int | str]]
    shown: Callable[[Subject, Result], tuple[str, tuple[Path, Path]]]
    matched: Callable[[Subject, Result, LoadFeatures], MatchedPoints]
