"""The workspace of mapping: a copy of the database, and checks of its content."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.model import DatabaseContent, read_database


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Inputs and scratch folder of a reconstruction.

    Attributes:
        database: a private copy, because COLMAP writes to databases that it opens.
        images: folder of the images, for the colours of points; may be missing.
        scratch: an empty folder.
        known_cameras: ids of the cameras whose intrinsics are reliable.
        use_priors: whether bundle adjustment uses the database's position priors.
        phases: which of several maps this one is, for its progress.
    """

    database: Path
    images: Path
    scratch: Path
    known_cameras: frozenset[int]
    use_priors: bool = False
    phases: tuple[str, ...] = ()

    @property
    def image_folder(self) -> Path:
        """Folder of images for COLMAP, which requires the folder but not the images."""
        return self.images if self.images.is_dir() else self.scratch

    def in_phase(self, phase: str) -> Workspace:
        """The same for one of several maps."""
        return dataclasses.replace(self, phases=(*self.phases, phase))

    def copy(self) -> Workspace:
        """A copy with its own database and empty folder."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        scratch = folder / "models"
        scratch.mkdir()
        database = folder / "database.db"
        shutil.copyfile(self.database, database)
        return dataclasses.replace(self, database=database, scratch=scratch)

    def triangulate(
        self,
        model: pycolmap.Reconstruction,
        options: pycolmap.IncrementalPipelineOptions,
        *,
        refine_intrinsics: bool,
    ) -> pycolmap.Reconstruction:
        """Points of the database's matches, at the poses of a model, which stay.

        Args:
            model: whose points are found anew.
            options: of COLMAP.
            refine_intrinsics: whether bundle adjustment moves cameras' parameters.
        """
        return pycolmap.triangulate_points(
            model,
            str(self.database),
            str(self.image_folder),
            str(self.scratch),
            options=options,
            refine_intrinsics=refine_intrinsics,
        )


def constant_cameras(
    config: MapConfig, workspace: Workspace, content: DatabaseContent
) -> frozenset[int]:
    """Ids of the cameras that bundle adjustment must keep constant."""
    if config.refine_intrinsics == "auto":
        return workspace.known_cameras
    return frozenset(() if config.refine_intrinsics else content.cameras)


def guessed_cameras(
    config: MapConfig, workspace: Workspace, content: DatabaseContent
) -> frozenset[int]:
    """Ids of the guessed cameras, which may be refined."""
    guessed = frozenset(
        camera_id
        for camera_id, camera in content.cameras.items()
        if not camera.has_prior_focal_length
    )
    return guessed - constant_cameras(config, workspace, content)


def read_verified(database: Path, source: Path | None = None) -> DatabaseContent:
    """Read a database, which must hold verified pairs.

    Args:
        database: to read.
        source: what it is a copy of, for the error.

    Raises:
        ReconstructionError: it has none.
    """
    with quiet_pycolmap():
        content = read_database(database)
    if content.verified_pairs == 0:
        raise ReconstructionError(
            f"{source or database}: found {len(content.images)} images and no verified "
            "pair, expected verified matches; check that the images overlap, and that "
            "their pairs were matched and verified"
        )
    return content


@contextmanager
def colmap_errors() -> Iterator[None]:
    """Convert COLMAP's errors on its input to one-line errors."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise ReconstructionError(
            f"COLMAP cannot map this database: {reason}; create it again with "
            "kapture_r2d2_verify or kapture_r2d2_colmap"
        ) from error
