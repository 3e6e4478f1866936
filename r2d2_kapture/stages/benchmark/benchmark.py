"""What a benchmark is: items, what is measured on each, and how results are kept.

A new benchmark is one file: a Benchmark, a function that opens it, and a Presentation
of its results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

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
class Benchmark(ABC, Generic[Subject, Result]):
    """Items, what is measured on each, and how results are kept.

    Attributes:
        presentation: of its results, which has its name.
        unit: of the report, in the singular.
        item_suffix: of the file of results of an item.
        shares_images: whether several items have an image, so that features are kept.
        items: in order.
        root: folder that names of images are relative to.
        matcher: on the CPU.
        worst_pairs: number of pairs that are drawn.
        failed: what is left out of the items, with the reason.
        warnings: on the items, for the report.
    """

    presentation: ClassVar[Presentation[Any]]
    unit: ClassVar[str]
    item_suffix: ClassVar[str]
    shares_images: ClassVar[bool]
    items: tuple[Item[Subject], ...]
    root: Path
    matcher: Matcher
    worst_pairs: int
    failed: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Settings of what is measured, for the manifest."""

    @abstractmethod
    def details(self, found: int) -> dict[str, Any]:
        """Numbers of the report, after so many pairs."""

    @abstractmethod
    def measure(
        self, subject: Subject, load: LoadFeatures
    ) -> tuple[list[Result], list[Failure]]:
        """Results of the pairs of an item, and what failed; the item is stored if
        nothing did."""

    @abstractmethod
    def load_item(self, path: Path, fingerprint: str) -> list[Result] | None:
        """Stored results of an item; None where absent, broken or of other inputs."""

    @abstractmethod
    def save_item(self, path: Path, pairs: Sequence[Result], fingerprint: str) -> None:
        """Store the results of an item.

        Raises:
            OutputError: the file system refused.
        """

    @abstractmethod
    def save_run(
        self, path: Path, label: str, manifest: Manifest, found: Sequence[Result]
    ) -> None:
        """Write the results of all items; at least one.

        Raises:
            OutputError: the file system refused.
        """

    @abstractmethod
    def rank(self, result: Result) -> tuple[float, str, int | str]:
        """Sorts results, the worst first."""

    @abstractmethod
    def shown(self, subject: Subject, result: Result) -> tuple[str, tuple[Path, Path]]:
        """The two images of a result: their names as text, and their files."""

    @abstractmethod
    def matched(
        self, subject: Subject, result: Result, load: LoadFeatures
    ) -> MatchedPoints:
        """The matches of a result.

        Args:
            subject: of its item.
            result: of the pair.
            load: features that are kept, see shares_images.

        Raises:
            FeatureFormatError, ImageError: the features cannot be read.
        """
