"""What a pipeline made, as COLMAP has it: its database and its map, as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from r2d2_kapture.io.colmap.check import (
    check_database,
    copy_database,
    write_ahead_log,
)
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.model import drop_rigs, read_database
from r2d2_kapture.io.colmap.sparse_map import map_files, read_colmap_model
from r2d2_kapture.stages.export.content import FoundModel
from r2d2_kapture.stages.export.formats import Written
from r2d2_kapture.stages.pipeline_layout import Layout


@dataclass(frozen=True, kw_only=True)
class PipelineContent:
    """Content of the work folder of a pipeline, see ``Content``.

    Attributes:
        layout: of the folder.
    """

    layout: Layout

    @property
    def settings(self) -> dict[str, str]:
        """None: all has been decided."""
        return {}

    @property
    def files(self) -> Iterator[Path | str]:
        """The database and the map."""
        yield from (self._database, write_ahead_log(self._database))
        yield from map_files(self.layout.map)

    @property
    def _database(self) -> Path:
        """The one that the map was made of."""
        return self.layout.mapped_database

    def write_database(self, path: Path) -> Written:
        """Copy the database, with its verified geometries."""
        warnings = check_database(self._database)
        copy_database(self._database, path)
        with quiet_pycolmap():
            content = read_database(path)
        return Written(
            details={
                "cameras": len(content.cameras),
                "images": len(content.images),
                "verified_pairs": content.verified_pairs,
            },
            warnings=warnings,
        )

    def model(self, database: Path) -> FoundModel:
        """The map, whose images have the ids of the database."""
        model = read_colmap_model(self.layout.map)
        if _cameras_of(model.rigs.values()) != _cameras_of(
            read_database(database).rigs
        ):
            drop_rigs(database)  # as mapping did, where poses contradict the rigs
        return model, ()


def _cameras_of(rigs: Iterable[pycolmap.Rig]) -> dict[int, frozenset[int]]:
    return {rig.rig_id: frozenset(s.id for s in rig.sensor_ids()) for rig in rigs}
