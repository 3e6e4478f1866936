"""Keypoints with their descriptors: hloc's features file, and COLMAP's text files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.io.features.colmap_text import write_colmap_text
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.io.features.reading import orientations
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.stages.export.formats import BeforeMove, Written, readable_features
from r2d2_kapture.stages.export.source import Source
from r2d2_kapture.types import Failure

NO_SCORES = "0: kapture stores no scores; rows keep their order"


def source_features(source: Source, descriptors_type: str | None) -> LocalFeatureTables:
    """The keypoints of a source, with descriptors.

    Raises:
        DatasetError, FeatureFormatError: see ``open_local_features``.
    """
    tables = open_local_features(
        source.roots, source.keypoints.type_name, descriptors_type
    )
    return dataclasses.replace(tables, keypoints=source.keypoints)


@dataclass(frozen=True, kw_only=True)
class FeatureFormat:
    """Attributes:
    source: of the images.
    tables: their keypoints and descriptors.
    """

    source: Source
    tables: LocalFeatureTables

    @property
    def settings(self) -> dict[str, str]:
        """The descriptors."""
        return {"descriptors_type": self.tables.descriptors.type_name}

    @property
    def files(self) -> Iterator[Path | str]:
        """Those of descriptors."""
        return self.tables.descriptors.files(self.source.names)


class H5File(FeatureFormat):
    """The features of all images in one file, see io/features/hdf5.py."""

    def write(
        self,
        output: Path,
        before_move: BeforeMove,
        *,
        progress: bool | None,
    ) -> Written:
        """See ``Format``."""
        failed: list[Failure] = []
        with atomic_path(output) as complete:
            items = readable_features(
                self.source.paths, self.tables, failed, progress=progress
            )
            write_h5(complete, items)
            before_move(complete)
        return Written(failed=tuple(failed), details={"scores": NO_SCORES})


class ColmapTexts(FeatureFormat):
    """A file an image, see io/features/colmap_text.py."""

    def write(
        self,
        output: Path,
        before_move: BeforeMove,
        *,
        progress: bool | None,
    ) -> Written:
        """See ``Format``."""
        failed: list[Failure] = []
        for name, item in readable_features(
            self.source.paths, self.tables, failed, progress=progress
        ):
            write_colmap_text(
                output / f"{name}.txt",
                item,
                orientations=orientations(self.source.keypoints.read(name)),
                stored=self.tables.beside_keypoints(name).read_stored(name),
            )
        return Written(failed=tuple(failed))
