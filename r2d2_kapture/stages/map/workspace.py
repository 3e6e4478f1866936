"""Where a map is made: a database of its own, and what it must hold."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.model import DatabaseContent, read_database


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a reconstruction reads, and where it may write.

    Attributes:
        database: a copy of its own: COLMAP writes to databases that it opens.
        images: folder of the images, for the colours of points; may be absent.
        scratch: an empty folder.
        known_cameras: ids of the cameras whose intrinsics are reliable.
    """

    database: Path
    images: Path
    scratch: Path
    known_cameras: frozenset[int]

    @property
    def image_folder(self) -> Path:
        """Where COLMAP looks for images; it insists on a folder, not on the images."""
        return self.images if self.images.is_dir() else self.scratch

    def copy(self) -> Workspace:
        """The same with a database and an empty folder of its own."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        scratch = folder / "models"
        scratch.mkdir()
        database = folder / "database.db"
        shutil.copyfile(self.database, database)
        return dataclasses.replace(self, database=database, scratch=scratch)


def constant_cameras(
    config: MapConfig, workspace: Workspace, content: DatabaseContent
) -> frozenset[int]:
    """Ids of the cameras that bundle adjustment must not change."""
    if config.refine_intrinsics == "auto":
        return workspace.known_cameras
    return frozenset(() if config.refine_intrinsics else content.cameras)


def guessed_cameras(
    config: MapConfig, workspace: Workspace, content: DatabaseContent
) -> frozenset[int]:
    """Ids of the cameras that are guesses, and may be refined."""
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
        ReconstructionError: it holds none.
    """
    with quiet_pycolmap():
        content = read_database(database)
    if content.verified_pairs == 0:
        raise ReconstructionError(
            f"{source or database}: found {len(content.images)} images and no verified "
            "pair, expected matches that agree with a geometry; check that the images "
            "overlap, and that their pairs were matched and verified"
        )
    return content


@contextmanager
def colmap_errors() -> Iterator[None]:
    """What COLMAP finds wrong with its input, in a line."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise ReconstructionError(
            f"COLMAP cannot map this database: {reason}; create it again with "
            "kapture_r2d2_verify or kapture_r2d2_colmap"
        ) from error
