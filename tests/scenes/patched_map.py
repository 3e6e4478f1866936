"""Photographs of a room, an exact map of it, and queries whose keypoints are noisy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.stages.localize import run as localize
from r2d2_kapture.synthetic.rendering import PinholeCamera
from r2d2_kapture.types import Report, unit_rows
from tests.scenes.localization import QUIET
from tests.scenes.rendered import (
    look_into_the_room,
    points_of_the_room,
    reconstruction_of,
    sees,
    write_photographs,
)
from tests.scenes.world import pair_matches, write_array, write_matches

CAMERA = PinholeCamera(image_size=(320, 240), focal_length=280.0)
COLMAP_CAMERA = pycolmap.Camera(
    camera_id=1, model="PINHOLE", width=320, height=240, params=[280, 280, 160, 120]
)
MAPPED = {
    f"map/{i}.png": look_into_the_room(x, y)
    for i, (x, y) in enumerate([(-1.2, -2.6), (-0.3, -3.0), (0.6, -2.7), (1.4, -3.1)])
}
QUERIES = {
    f"query/{i}.png": look_into_the_room(x, y)
    for i, (x, y) in enumerate([(0.1, -2.5), (-0.8, -3.2)])
}


@dataclass(frozen=True)
class PatchedRoom:
    """Photographs, a map without patches, and what localization takes.

    The map is at the truth; keypoints of queries are up to a pixel off.

    Attributes:
        root: folder of all.
    """

    root: Path

    @property
    def map_path(self) -> Path:
        return self.root / "map"

    @property
    def query(self) -> Path:
        return self.root / "query"

    @property
    def images(self) -> dict[str, Path]:
        """Of the map, by name."""
        folder = self.root / "mapping/sensors/records_data"
        return {name: folder / name for name in MAPPED}

    def localize(
        self,
        config: LocalizeConfig = LocalizeConfig(),
        output: str = "localized",
        options: RunOptions = QUIET,
        map_path: Path | None = None,
    ) -> Report:
        return localize(
            config,
            map_path=map_path or self.map_path,
            query=self.query,
            pairs=self.root / "pairs.txt",
            features=[self.root / "features"],
            matches=[self.root / "matches"],
            output=self.root / output,
            options=options,
        )


def truth(name: str) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d((MAPPED | QUERIES)[name][:3])


def write_room(root: Path, *, every: int = 1, described: bool = False) -> PatchedRoom:
    """Write a scene.

    Args:
        root: folder of all.
        every: so many-th match is there.
        described: whether there are descriptors, which tell the points apart.
    """
    room = PatchedRoom(root)
    write_photographs(root / "mapping", MAPPED, CAMERA)
    write_photographs(room.query, QUERIES, CAMERA)
    points = points_of_the_room(MAPPED, CAMERA, 400)
    shown = {
        name: np.flatnonzero(sees(pose, points, CAMERA))
        for name, pose in (MAPPED | QUERIES).items()
    }
    # each is observed twice at least
    views = np.bincount(np.concatenate([shown[name] for name in MAPPED]), minlength=400)
    rows = {name: seen[views[seen] > 1] for name, seen in shown.items()}
    model = reconstruction_of(
        MAPPED, points, COLMAP_CAMERA, {name: rows[name] for name in MAPPED}
    )
    (room.map_path / "sparse").mkdir(parents=True)
    model.write(str(room.map_path / "sparse"))
    rng = np.random.default_rng(3)
    of_points = unit_rows(rng.normal(size=(400, 16)))
    for name, pose in (MAPPED | QUERIES).items():
        seen = points[rows[name]] @ pose[:3, :3].T + pose[:3, 3]
        xy = kapture_from_colmap(COLMAP_CAMERA.img_from_cam(seen))
        if name in QUERIES:
            xy = xy + rng.uniform(-1, 1, xy.shape)
        sided = np.column_stack([xy, np.full(len(xy), 32.0)]).astype(np.float32)
        for place in (root / "features", room.map_path / "kapture"):
            folder = place / "reconstruction/keypoints/r2d2"
            write_array(folder / f"{name}.kpt", sided)
            (folder / "keypoints.txt").write_text(
                "# kapture format: 1.1\nr2d2, float32, 3\n"
            )
        if described:
            folder = root / "features/reconstruction/descriptors/r2d2"
            write_array(folder / f"{name}.desc", of_points[rows[name]])
            (folder / "descriptors.txt").write_text(
                "# kapture format: 1.1\nr2d2, float32, 16, r2d2, L2\n"
            )
    pairs = [(query, name) for query in QUERIES for name in MAPPED]
    for query, name in pairs:
        _, of_query, of_map = np.intersect1d(
            rows[query], rows[name], return_indices=True
        )
        matches = pair_matches(np.column_stack([of_map, of_query])[::every])
        write_matches(root / "matches", (name, query), matches)
    write_pairs(root / "pairs.txt", [ImagePair(image1=a, image2=b) for a, b in pairs])
    return room
