"""Files of a kapture dataset that is open for writing, each whole or absent."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt

from r2d2_kapture.io.kapture.feature_store import FeatureType
from r2d2_kapture.io.kapture.feature_table import SUFFIXES
from r2d2_kapture.io.kapture.match_store import (
    match_bytes,
    match_name,
    matches_folder,
)
from r2d2_kapture.io.kapture.pairs import sorted_pair
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME
from r2d2_kapture.io.outputs.ledger import open_item, write_item
from r2d2_kapture.types import PairMatches

METRIC = "L2"
LAST = "sensors.txt"
"""By which a dataset is recognised."""


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """Writes a dataset; files of the expected size stay as they are.

    Attributes:
        root: folder that ``open_ledger`` has opened.
        features: types of its keypoints and descriptors.
    """

    root: Path
    features: FeatureType

    def describe_keypoints(self, columns: int) -> None:
        """Write keypoints.txt, of float32 rows that count from pixel centers."""
        folder = self.features.folder("keypoints")
        kind = kapture.Keypoints(self.features.keypoints_type, np.float32, columns)
        self._describe(folder, kind.type_name, "float32", columns)
        self._origin(folder)

    def describe_descriptors(self, dtype: np.dtype[Any], columns: int) -> None:
        """Write descriptors.txt."""
        self._describe(
            self.features.folder("descriptors"),
            self.features.descriptors_type,
            dtype.name,
            columns,
            self.features.keypoints_type,
            METRIC,
        )

    def write_rows(self, kind: str, image: str, rows: npt.NDArray[Any]) -> bool:
        """Write the keypoints or descriptors of an image; whether they were missing."""
        suffix = {str(name): end for name, end in SUFFIXES.items()}[kind]
        path = self.features.folder(kind) / f"{image}{suffix}"
        little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        return self._write_missing(path, np.ascontiguousarray(little).tobytes())

    def write_matches(
        self, root: Path, pair: tuple[str, str], matches: PairMatches
    ) -> bool:
        """Write the matches of a pair, in their order; whether they were missing."""
        if sorted_pair(*pair) != pair:
            indices = np.ascontiguousarray(matches.indices[:, ::-1])
            matches = PairMatches(indices=indices, scores=matches.scores)
            pair = sorted_pair(*pair)
        folder = matches_folder(root, self.features.keypoints_type)
        return self._write_missing(folder / match_name(pair), match_bytes(matches))

    def write_table(
        self, name: str, header: str, rows: Iterable[Iterable[object]]
    ) -> None:
        """Write a table as rows come.

        Args:
            name: of the file below the root.
            header: names of its columns.
            rows: its fields.
        """
        with open_item(self.root, self.root / name, keep_same=True) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            kcsv.table_to_file(text, rows, header=f"# {header}")
            text.flush()
            text.detach()

    def write_sensors(self, data: kapture.Kapture) -> None:
        """Write sensors, rigs, records and trajectories; sensors.txt comes last."""
        self._origin(self.root / "sensors")
        with tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as scratch:
            kcsv.kapture_to_dir(scratch, data)
            tables = sorted(Path(scratch).rglob("*.txt"), key=lambda p: p.name == LAST)
            for table in tables:
                place = self.root / table.relative_to(scratch)
                self._write_other(place, table.read_bytes())

    def _describe(self, folder: Path, *fields: object) -> None:
        kind = folder.parent.name
        header = "# name, dtype, dsize"
        header += ", keypoints_type, metric_type" if kind == "descriptors" else ""
        text = io.StringIO()
        kcsv.table_to_file(text, [fields], header=header)
        self._write_other(folder / f"{kind}.txt", text.getvalue().encode())

    def _origin(self, folder: Path) -> None:
        text = json.dumps({"pixel_origin": "center"}, indent=2) + "\n"
        self._write_other(folder / ORIGIN_NAME, text.encode())

    def _write_other(self, path: Path, data: bytes) -> None:
        """Write a small file unless it has this content."""
        with open_item(self.root, path, keep_same=True) as file:
            file.write(data)

    def _write_missing(self, path: Path, data: bytes) -> bool:
        try:
            if path.stat().st_size == len(data):
                return False
        except OSError:
            pass
        write_item(self.root, path, data)
        return True
