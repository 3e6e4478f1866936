"""What a format has in common with the others: what it reads, and what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.types import Failure, LocalFeatures

BeforeMove = Callable[[Path], None]
"""Is given a complete file just before it takes its place."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a format has made.

    Attributes:
        failed: images that are not in it.
        details: of the report.
        warnings: likewise, before those of the source.
    """

    failed: tuple[Failure, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Written) -> Written:
        """What two steps have made."""
        return Written(
            failed=(*self.failed, *other.failed),
            details={**self.details, **other.details},
            warnings=(*self.warnings, *other.warnings),
        )


class Format(Protocol):
    """A source that is open for one format."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those on which it depends, besides those of the source."""

    @property
    def files(self) -> Iterator[Path | str]:
        """Those that it reads, besides those of the source."""

    def write(
        self,
        output: Path,
        before_move: BeforeMove,
        *,
        progress: bool | None,
    ) -> Written:
        """Write it.

        Args:
            output: file to make or replace, or empty folder to fill.
            before_move: is given a complete file just before it becomes ``output``.
            progress: whether to show a bar; None shows one on a terminal.
        """


def readable_features(
    paths: Mapping[str, Path],
    tables: LocalFeatureTables,
    failed: list[Failure],
    *,
    progress: bool | None,
) -> Iterator[tuple[str, LocalFeatures]]:
    """Read features image by image.

    Args:
        paths: of the images, by name.
        tables: of their features.
        failed: gets those that cannot be read.
        progress: see ``Format.write``.
    """
    bar = Progress("export", "photograph", len(paths), shown=progress)
    for name, path in bar.over(list(paths.items())):
        try:
            features = tables.read(name, image_size(path))
        except (FeatureFormatError, ImageError) as error:
            failed.append(Failure(name=name, reason=str(error)))
            continue
        yield name, features
