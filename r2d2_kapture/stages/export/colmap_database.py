"""COLMAP 4 databases of a dataset, its keypoints and its matches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.colmap.check import check_unused
from r2d2_kapture.io.colmap.database import keypoints_or_no_rows, write_database
from r2d2_kapture.io.features.reading import check_inside
from r2d2_kapture.io.kapture.camera_mode import single_camera_hint, with_camera_mode
from r2d2_kapture.io.kapture.camera_sizes import dataset_images, unlike_sensors
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.feature_provenance import refuse_stale_matches
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.stages.export.formats import BeforeMove, Written
from r2d2_kapture.stages.export.source import Source
from r2d2_kapture.types import Failure


@dataclass(frozen=True, kw_only=True)
class ColmapDatabase:
    """Cameras, rigs, frames, images, keypoints and matches, see io/colmap/database.py.

    Attributes:
        source: of the images.
        matches: of their keypoints; may be empty.
        camera_mode: which images of unknown cameras share one.
    """

    source: Source
    matches: MatchTable
    camera_mode: CameraMode

    @property
    def settings(self) -> dict[str, str]:
        """How cameras are shared."""
        return {"camera_mode": self.camera_mode}

    @property
    def files(self) -> Iterator[Path]:
        """Those of matches."""
        return self.matches.files(self.matches.pairs)

    def write(
        self,
        output: Path,
        before_move: BeforeMove,
        *,
        progress: bool | None,
    ) -> Written:
        """See ``Format``."""
        check_unused(output)
        source = self.source
        data = with_camera_mode(source.dataset.data, self.camera_mode)
        refuse_stale_matches(self.matches, source.keypoints, source.names)
        unlike = unlike_sensors(source.dataset, source.names)
        rest = set(source.names) - unlike.keys()
        unlike |= _outside(source.dataset, source.keypoints, rest)
        pairs = [p for p in self.matches.pairs if unlike.keys().isdisjoint(p)]
        summary = write_database(
            output,
            data,
            read_keypoints=keypoints_or_no_rows(source.keypoints, unlike),
            read_matches=self.matches.read,
            pairs=pairs,
            camera_origin=source.cameras.origin,
            overwrite=True,
            before_move=before_move,
        )
        return Written(
            failed=tuple(unlike.values()),
            details=dataclasses.asdict(summary),
            warnings=(
                *source.cameras.warnings,
                *single_camera_hint(data, self.camera_mode),
            ),
        )


def _outside(
    dataset: Dataset, keypoints: FeatureTable, names: Iterable[str]
) -> dict[str, Failure]:
    """Images whose keypoints belong to an image of another size, by name."""
    failed = {}
    for name, image in dataset_images(dataset, names).items():
        rows = keypoints.read(name)
        try:
            check_inside(rows, image.size, f"'{name}'")
        except FeatureFormatError as error:
            failed[name] = Failure(name=name, reason=str(error))
    return failed
