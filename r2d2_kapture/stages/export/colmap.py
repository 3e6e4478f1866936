"""COLMAP's formats: a database alone, with a model, for COLMAP 3, or a model alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.bundler import check_radial, write_bundler
from r2d2_kapture.io.colmap.check import check_unused
from r2d2_kapture.io.colmap.colmap3 import (
    remove_rigs_and_frames,
    write_colmap3_database,
)
from r2d2_kapture.io.colmap.database import building
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.outputs.atomic import output_error
from r2d2_kapture.stages.export.content import (
    Content,
    add_descriptors,
    add_pose_priors,
    temporary_database,
)
from r2d2_kapture.stages.export.formats import BeforeMove, Written
from r2d2_kapture.stages.export.source import Source

DATABASE_NAME = "database.db"
MODEL_NAME = "sparse"


@dataclass(frozen=True, kw_only=True)
class ColmapFormat:
    """Attributes:
    source: of the images.
    content: of it.
    descriptors: of it; None leaves them out.
    text: whether the model is text.
    """

    source: Source
    content: Content
    descriptors: LocalFeatureTables | None = None
    text: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the content, and the descriptors."""
        more: dict[str, Any] = {"text": True} if self.text else {}
        if self.descriptors is not None:
            more["descriptors_type"] = self.descriptors.descriptors.type_name
        return {**self.content.settings, **more}

    @property
    def files(self) -> Iterator[Path | str]:
        """Those of the content and of descriptors."""
        yield from self.content.files
        if self.descriptors is not None:
            yield from self.descriptors.descriptors.files(self.source.names)

    def _fill(self, database: Path) -> Written:
        """Write the database of COLMAP 4, with pose priors and descriptors."""
        written = self.content.write_database(database)
        written += add_pose_priors(database, self.source)
        if self.descriptors is not None:
            written += add_descriptors(
                database, self.source, self.descriptors, written.failed
            )
        return written

    def _write_model(self, database: Path, folder: Path) -> Written:
        """Write the images of a database that have a pose, and what they see."""
        model, warnings = self.content.model(database)
        if model is None:
            return Written(warnings=warnings)
        if self.text:
            _refuse_spaces(model)
        try:
            folder.mkdir()
        except OSError as error:
            raise output_error(folder, error) from error
        (model.write_text if self.text else model.write_binary)(str(folder))
        return Written(details=_counts(model), warnings=warnings)


class Colmap(ColmapFormat):
    """A database and a model for COLMAP 4."""

    def write(
        self, output: Path, before_move: BeforeMove, *, progress: bool | None
    ) -> Written:
        """See ``Format``."""
        with building(output / DATABASE_NAME) as database:
            return self._fill(database) + self._write_model(
                database, output / MODEL_NAME
            )


class Colmap3(ColmapFormat):
    """A database and a model for COLMAP 3.8."""

    def write(
        self, output: Path, before_move: BeforeMove, *, progress: bool | None
    ) -> Written:
        """See ``Format``.

        Raises:
            DatasetError: a camera of a model that it does not have.
        """
        with building(output / DATABASE_NAME) as database:
            newer = database.with_name("colmap4.db")
            written = self._fill(newer)
            left_out = write_colmap3_database(newer, database)
            written += self._write_model(newer, output / MODEL_NAME)
            remove_rigs_and_frames(output / MODEL_NAME)
        none_left = {"descriptors": 0} if left_out.descriptors else {}
        return written + Written(details=none_left, warnings=tuple(left_out.warnings))


class ColmapDatabase(ColmapFormat):
    """A database for COLMAP 4 alone, without descriptors."""

    def write(
        self, output: Path, before_move: BeforeMove, *, progress: bool | None
    ) -> Written:
        """See ``Format``."""
        check_unused(output)
        with building(output, before_move) as database:
            return self.content.write_database(database)


class Bundler(ColmapFormat):
    """A model for tools that read Bundler's."""

    def write(
        self, output: Path, before_move: BeforeMove, *, progress: bool | None
    ) -> Written:
        """See ``Format``.

        Raises:
            DatasetError: no image has a pose, or a camera is not radial.
        """
        with temporary_database(self.content) as (database, written):
            model, warnings = self.content.model(database)
        root = self.source.dataset.root
        if model is None:
            raise DatasetError(
                f"{root}: found no pose of an image, expected a map; map the images "
                "first"
            )
        used = {image.camera_id for image in model.images.values()}
        check_radial((model.camera(i) for i in sorted(used)), str(root))
        write_bundler(output, model)
        counts = Written(details=_counts(model), warnings=warnings)
        return Written(failed=written.failed, warnings=written.warnings) + counts


def _counts(model: pycolmap.Reconstruction) -> dict[str, object]:
    return {
        "registered_images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
    }


def _refuse_spaces(model: pycolmap.Reconstruction) -> None:
    for image in model.images.values():
        if " " in image.name:
            raise DatasetError(
                f"image '{image.name}': found a space in its name, which COLMAP cuts "
                "in text models; omit --text, or rename the image"
            )
