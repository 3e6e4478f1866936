"""Where queries are on Earth, and how far from where their GNSS records say."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.io.geodesy import Positions
from r2d2_kapture.io.georeference import Georeference
from r2d2_kapture.io.kapture.gnss import GnssPosition, Position, in_metres
from r2d2_kapture.io.outputs.atomic import remove_file, write_text_atomic
from r2d2_kapture.stages.localize.results import QueryResult
from r2d2_kapture.types import OWN_UNITS

POSITIONS_NAME = "positions.csv"
COLUMNS = ("image", "latitude", "longitude", "altitude", "gnss_distance")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Puts poses in a map on Earth.

    Attributes:
        georeference: of the map; None if it is not known where that lies.
        gnss: positions of queries, by name.
        unit: of the map.
    """

    georeference: Georeference | None
    gnss: Mapping[str, Position]
    unit: str = OWN_UNITS

    def of(self, result: QueryResult) -> QueryResult:
        """The outcome of a query with its place."""
        found = self.georeference
        if found is None or not result.localized:
            return dataclasses.replace(result, wgs84=None, gnss_distance=None)
        center = result.pose.inverse().translation[None]
        wgs84 = found.wgs84(center)
        return dataclasses.replace(
            result,
            wgs84=None if wgs84 is None else tuple(wgs84[0].tolist()),
            gnss_distance=self._distance(found, result.image, center),
        )

    def _distance(
        self, found: Georeference, image: str, center: Positions
    ) -> float | None:
        """In metres, horizontally where the altitude of the record is not known."""
        position = self.gnss.get(image)
        on_earth = isinstance(position, GnssPosition)
        if position is None or on_earth != (found.frame is not None):
            return None
        offset = (found.metric(center) - in_metres({image: position}, found.frame)[0])[
            0
        ]
        if isinstance(position, GnssPosition) and position.altitude is None:
            offset = offset[:2]
        return round(float(np.linalg.norm(offset)), 4)


def positions_files(output: Path) -> list[Path]:
    """The file of positions, which only a map on Earth gives."""
    path = output / POSITIONS_NAME
    return [path] if path.exists() else []


def write_positions(output: Path, results: Sequence[QueryResult]) -> None:
    """Write the places of queries as a table; no file where none is known.

    Raises:
        OutputError: the file cannot be written.
    """
    placed = sorted((r for r in results if r.wgs84), key=lambda one: one.image)
    if not placed:
        remove_file(output / POSITIONS_NAME)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in placed:
        latitude, longitude, altitude = result.wgs84 or ()
        place = f"{latitude:.9f}", f"{longitude:.9f}", f"{altitude:.4f}"
        writer.writerow([result.image, *place, result.gnss_distance])
    write_text_atomic(output / POSITIONS_NAME, text.getvalue())
