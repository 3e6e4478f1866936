"""Photographs of one picture by a camera that shifts, turns and zooms: true places."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from PIL import Image

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import Turn, stored_from_turned
from r2d2_kapture.io.colmap.database import write_database
from r2d2_kapture.io.outputs.orientations import RecordedTurn, write_turns
from r2d2_kapture.stages import refine
from r2d2_kapture.types import PairMatches, Report
from tests.refinement.waves import waves
from tests.scenes.kapture_files import write_rows

Array = npt.NDArray[np.float64]
SIZE = (150, 110)
NOISE = 0.25
"""Pixels by which detected keypoints are wrong."""
QUIET = RunOptions(progress=False, workers=1)


@dataclass(frozen=True, kw_only=True)
class Moving:
    """Photographs, and their detected keypoints in a kapture dataset and a database.

    Attributes:
        root: of all files.
        shifts: of each photograph by name, in pixels.
        turns: by which a photograph is stored turned clockwise against the others.
        columns: of a keypoint.
    """

    root: Path
    shifts: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {
            "été/a b.png": (0.0, 0.0),
            "été/c.png": (3.3, -2.6),
            "d.png": (-4.7, 1.2),
            "e.png": (2.1, 5.4),
        }
    )
    turns: Mapping[str, Turn] = field(default_factory=dict)
    columns: int = 3

    @property
    def mapping(self) -> Path:
        return self.root / "mapping"

    @property
    def database(self) -> Path:
        return self.root / "map.db"

    @property
    def output(self) -> Path:
        return self.root / "refined é"

    @property
    def folder(self) -> Path:
        return self.output / "reconstruction" / "keypoints" / "waves_refined"

    def photograph(self, name: str) -> Path:
        return self.mapping / "sensors" / "records_data" / name

    def upright(self, name: str) -> Array:
        """(N, 2) true places in the photograph, not turned."""
        columns, rows = np.meshgrid(np.arange(30, 125, 14.0), np.arange(30, 85, 13.0))
        return np.stack([columns.ravel(), rows.ravel()], axis=1) + self.shifts[name]

    def stored_size(self, name: str) -> tuple[int, int]:
        width, height = SIZE
        return (height, width) if self.turns.get(name, 0) % 180 else (width, height)

    def true(self, name: str) -> Array:
        """(N, 2) true places in the photograph as it is stored."""
        turn = self.turns.get(name, 0)
        places = stored_from_turned(self.upright(name), turn, self.stored_size(name))
        return np.asarray(places, np.float64)

    def detected(self, name: str) -> npt.NDArray[np.float32]:
        """The keypoints with noise; columns after x and y are sides, or anything."""
        seed = sorted(self.shifts).index(name)
        xy = self.true(name) + np.random.default_rng(seed).normal(0, NOISE, (35, 2))
        more = np.tile([32.0, 7.0, 8.0, 9.0], (len(xy), 1))
        return np.hstack([xy, more])[:, : self.columns].astype(np.float32)

    def write(self, origin: str | None = None) -> Moving:
        """Write all files; keypoints that count from the corner say so."""
        data = kapture.Kapture(
            sensors=kapture.Sensors(), records_camera=kapture.RecordsCamera()
        )
        for number, name in enumerate(self.shifts):
            self.take(name)
            width, height = self.stored_size(name)
            data.sensors[f"camera{number}"] = kapture.Camera(
                "PINHOLE", [width, height, 100, 100, width / 2, height / 2]
            )
            data.records_camera[number, f"camera{number}"] = name
        kcsv.kapture_to_dir(str(self.mapping), data)
        self.write_keypoints(0.5 if origin == "corner" else 0.0)
        if origin is not None:
            text = json.dumps({"pixel_origin": origin})
            (self.features / "pixel_origin.json").write_text(text, "utf-8")
        self.write_database()
        return self

    @property
    def features(self) -> Path:
        return self.mapping / "reconstruction" / "keypoints" / "waves"

    def take(self, name: str) -> None:
        """Write a photograph."""
        grey = waves(SIZE, shift=self.shifts[name])
        path = self.photograph(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rot90(grey, self.turns.get(name, 0) // 90)).save(path)

    def write_keypoints(self, shift: float = 0.0) -> None:
        rows = {name: self.detected(name) for name in self.shifts}
        for values in rows.values():
            values[:, :2] += shift
        fields = f"waves, float32, {self.columns}"
        write_rows(self.features, "keypoints", rows, fields=fields)
        if self.turns:
            turns = {n: RecordedTurn(turn=t, sha256="") for n, t in self.turns.items()}
            write_turns(self.features, turns)

    def write_database(self, pairs: Sequence[tuple[str, str]] | None = None) -> None:
        """A database in which every keypoint matches those of the same number."""
        matches = PairMatches(
            indices=np.repeat(np.arange(35)[:, None], 2, axis=1),
            scores=np.ones(35, np.float32),
        )
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = int(pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED)
        geometry.F = np.eye(3)
        geometry.inlier_matches = matches.indices.astype(np.uint32)
        write_database(
            self.database,
            kcsv.kapture_from_dir(str(self.mapping)),
            read_keypoints=self.detected,
            read_matches=lambda first, second: matches,
            read_geometry=lambda first, second: geometry,
            pairs=pairs or list(itertools.combinations(self.shifts, 2)),
            overwrite=True,
        )

    def write_map(self) -> Path:
        """The true map: a plane at depth 1 before cameras that shift along it."""
        model = pycolmap.Reconstruction()
        base, *_ = (self.upright(n) - self.shifts[n] for n in self.shifts)
        middle = np.array(SIZE) / 2
        points = np.column_stack([(base + 0.5 - middle) / 100, np.ones(len(base))])
        numbers = {name: i for i, name in enumerate(sorted(self.shifts), start=1)}
        for name, number in numbers.items():
            params = [100, 100, *middle]
            camera = pycolmap.Camera(
                camera_id=number,
                model="PINHOLE",
                width=SIZE[0],
                height=SIZE[1],
                params=params,
            )
            model.add_camera_with_trivial_rig(camera)
            image = pycolmap.Image(name=name, camera_id=number, image_id=number)
            places = self.detected(name)[:, :2] + 0.5
            image.points2D = pycolmap.Point2DList(list(map(pycolmap.Point2D, places)))
            shift = np.array([*self.shifts[name], 0.0])[:, None] / 100
            pose = pycolmap.Rigid3d(np.hstack([np.eye(3), shift]))
            model.add_image_with_trivial_frame(image, pose)
        for row, point in enumerate(points):
            elements = [pycolmap.TrackElement(i, row) for i in numbers.values()]
            model.add_point3D(point, pycolmap.Track(elements), np.zeros(3, np.uint8))
        folder = self.root / "map" / "sparse"
        folder.mkdir(parents=True)
        model.write(str(folder))
        return folder.parent

    def refine(self, **changes: Any) -> Report:
        settings: dict[str, Any] = {
            "database": self.database,
            "output": self.output,
            "options": QUIET,
        }
        config = changes.pop("config", RefineConfig())
        return refine.run(config, mapping=self.mapping, **(settings | changes))

    def refined(self, name: str) -> npt.NDArray[np.float32]:
        """The rows that a run has written."""
        rows = np.fromfile(self.folder / f"{name}.kpt", np.float32)
        return rows.reshape(-1, self.columns)

    def spread(self, rows: Mapping[str, npt.NDArray[np.float32]]) -> float:
        """Root mean square of how far a track's places are from their mean.

        Args:
            rows: by image name, from the centre of the first pixel; relative to the
                true places, in the photographs not turned.
        """
        away = []
        for name, values in rows.items():
            turn = self.turns.get(name, 0)
            errors = values[:, :2] - self.true(name)
            zero = stored_from_turned(np.zeros((1, 2)), turn, (1, 1))
            axes = stored_from_turned(np.eye(2), turn, (1, 1)) - zero
            away.append(errors @ np.linalg.inv(axes))
        residuals = np.array(away) - np.mean(away, axis=0)
        return float(np.sqrt((residuals**2).mean()))
