"""Reconstructions that COLMAP makes up, whose numbers are known."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pycolmap


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A database, a model of it in ``sparse``, and empty files for its images."""

    root: Path
    model: pycolmap.Reconstruction

    @property
    def database(self) -> Path:
        return self.root / "database.db"

    @property
    def sparse(self) -> Path:
        return self.root / "sparse"

    @property
    def images(self) -> Path:
        return self.root / "images"


def synthesize(root: Path, **options: object) -> Made:
    """Two rigs of two cameras, which take images at three times."""
    settings = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=2, num_frames_per_rig=3, num_points3D=40
    )
    settings.mergedict(options)
    made = Made(root=root, model=pycolmap.Reconstruction())
    pycolmap.set_random_seed(0)
    with closing(pycolmap.Database.open(str(made.database))) as database:
        model = pycolmap.synthesize_dataset(settings, database)
    made.sparse.mkdir()
    model.write(str(made.sparse))
    for image in model.images.values():
        path = made.images / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Made(root=root, model=model)
