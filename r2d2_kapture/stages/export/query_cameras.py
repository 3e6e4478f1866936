"""Cameras of a pipeline's queries: found by localization, known, or guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import kapture
import pycolmap

from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.io.colmap.cameras import colmap_camera, image_cameras
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin, read_origin
from r2d2_kapture.stages.localize import read_localized, result_path
from r2d2_kapture.types import some_names


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Query images, and where localization noted what it found of them.

    Attributes:
        dataset: of the images.
        localized: output of localization; it may be missing.
    """

    dataset: Dataset
    localized: Path

    @property
    def files(self) -> Iterator[Path | str]:
        """Those of the dataset and of the outcomes."""
        yield from self.dataset.files
        for name in self.dataset.image_names:
            if (path := result_path(self.localized, name)).is_file():
                yield path

    def cameras(
        self, images: Sequence[str], camera_origin: CameraOrigin
    ) -> tuple[dict[str, pycolmap.Camera], tuple[str, ...]]:
        """The cameras of some of the images by name, in COLMAP's pixel origin.

        A camera is the one that localization found, else the dataset's, else a guess.

        Args:
            images: names.
            camera_origin: of the dataset's cameras, as the user gives it.

        Returns:
            The cameras, and warnings on what of them is not certain.

        Raises:
            DatasetError: a broken camera.
        """
        known = find_camera_origin(self.dataset, camera_origin)
        cameras = image_cameras(self.dataset.data, known.origin)
        origin = read_origin(self.localized / "sensors") or known.origin
        guessed: list[str] = []
        found = {}
        for name in images:
            result = read_localized(self.localized, name)
            if result is None:
                found[name] = cameras[name]
                guessed += [] if cameras[name].has_prior_focal_length else [name]
            else:
                model, *parameters = result.camera
                sensor = kapture.Camera(model, parameters)
                found[name] = colmap_camera(sensor, 0, origin)
        return found, (*known.warnings, *_guess_warning(guessed, len(images)))


def _guess_warning(guessed: Sequence[str], count: int) -> Iterator[str]:
    if guessed:
        yield (
            f"{len(guessed)} of {count} queries were not localized and have cameras of "
            f"unknown focal length: {some_names(guessed)}; hloc gets a guess of 1.2 "
            "times the longest side"
        )
