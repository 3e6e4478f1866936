"""Work on one photograph: cut the patches of its references, register the others."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import image_size, read_rgb
from r2d2_kapture.io.kapture.camera_sizes import CameraImage, size_difference
from r2d2_kapture.io.outputs.image_records import ImageRecord, record_image, stamp_image
from r2d2_kapture.refinement.frames import scale_frames
from r2d2_kapture.refinement.patches import (
    GreyImage,
    Templates,
    cut_templates,
    grey_image,
)
from r2d2_kapture.refinement.registration import Registration, register
from r2d2_kapture.stages.refine.patch_files import PatchFiles
from r2d2_kapture.stages.refine.results import ImageResult
from r2d2_kapture.stages.refine.tracks import Numbering, Tracks
from r2d2_kapture.types import IndexArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """The refined keypoints of an image.

    Attributes:
        xy: (N, 2) float64 pixels of all its keypoints.
        moved: (N,) whether each has moved; others are as they were.
        result: for the log.
        record: of the photograph; None where it could not be read.
    """

    xy: DoubleArray
    moved: npt.NDArray[np.bool_]
    result: ImageResult
    record: ImageRecord | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Photographs:
    """The photographs of a run; safe to use from several threads.

    Attributes:
        config: settings of registration.
        images: the files, by position.
        keypoints: of all images.
        tracks: of the keypoints.
        patches: on disk.
    """

    config: RefineConfig
    images: tuple[CameraImage, ...]
    keypoints: Numbering
    tracks: Tracks
    patches: PatchFiles

    def cut(self, image: int) -> Templates:
        """The patches of the references in an image.

        Raises:
            ImageError: the photograph cannot be read, or is none of its camera.
        """
        references = self.keypoints.references_in(image, self.tracks.reference)
        grey, _ = _read(self.images[image])
        return cut_templates(
            grey,
            self.keypoints.xy[references].astype(np.float64),
            scale_frames(self.keypoints.sides[references]),
            self.config,
        )

    def refine(self, image: int, without: Container[int]) -> Refined:
        """Register the observations of an image against their references.

        Args:
            image: its position.
            without: positions of images without patches, since they are unreadable.
        """
        observations = self.keypoints.observations_in(image, self.tracks.reference)
        references = self.keypoints.references_in(image, self.tracks.reference)
        images = self._images_of(self.tracks.reference[observations])
        readable = np.array([i not in without for i in images.tolist()], np.bool_)
        numbers = observations[readable]
        xy = self.keypoints.xy[self.keypoints.of(image)].astype(np.float64)
        moved = np.zeros(len(xy), np.bool_)
        found, record, failure = None, None, ""
        try:
            if len(numbers):
                grey, record = _read(self.images[image])
                found = self._register(grey, numbers, images[readable])
                rows = numbers - self.keypoints.of(image).start
                xy[rows], moved[rows] = found.keypoints, found.moved
            else:
                record = _record(self.images[image])
        except ImageError as error:
            failure = str(error) if len(observations) + len(references) else ""
        return Refined(
            xy=xy,
            moved=moved,
            record=record,
            result=ImageResult.of(
                found,
                len(observations) - (0 if found is None else len(numbers)),
                len(references),
                failure,
            ),
        )

    def needed_for(self, images: list[int]) -> list[int]:
        """The images with references of the observations in others, in order."""
        found: set[int] = set()
        for image in images:
            numbers = self.keypoints.observations_in(image, self.tracks.reference)
            references = self.tracks.reference[numbers]
            found.update(np.unique(self._images_of(references)).tolist())
        return sorted(found)

    def _register(
        self, grey: GreyImage, numbers: IndexArray, images: IndexArray
    ) -> Registration:
        references = self.tracks.reference[numbers].astype(np.int64)
        frames = self.tracks.affinities[numbers].astype(np.float64) @ scale_frames(
            self.keypoints.sides[references]
        )
        return register(
            self._templates(references, images),
            grey,
            self.keypoints.xy[numbers].astype(np.float64),
            frames,
            self.config,
        )

    def _templates(self, references: IndexArray, images: IndexArray) -> Templates:
        """The patches of references, which lie in the given images."""
        order = np.argsort(images, kind="stable")
        parts = []
        for part in np.split(order, np.flatnonzero(np.diff(images[order])) + 1):
            image = int(images[part[0]])
            there = self.keypoints.references_in(image, self.tracks.reference)
            rows = np.searchsorted(there, references[part])
            parts.append(self.patches.read(image, rows))
        return Templates(
            pixels=np.concatenate([part.pixels for part in parts]),
            zooms=np.concatenate([part.zooms for part in parts]),
        ).take(np.argsort(order))

    def _images_of(self, numbers: npt.NDArray[np.integer]) -> IndexArray:
        found = np.searchsorted(self.keypoints.starts, numbers, side="right") - 1
        return np.asarray(found, np.int64)


def _read(image: CameraImage) -> tuple[GreyImage, ImageRecord]:
    """Decode a photograph, and record its file; a link is named by its target."""
    path = _file_of(image)
    stamp = stamp_image(path)
    pixels = read_rgb(path)
    height, width = pixels.shape[:2]
    _check_size(image, (width, height))
    return grey_image(pixels), record_image(path, stamp, (width, height))


def _record(image: CameraImage) -> ImageRecord:
    path = _file_of(image)
    stamp = stamp_image(path)
    size = image_size(path)
    _check_size(image, size)
    return record_image(path, stamp, size)


def _check_size(image: CameraImage, found: tuple[int, int]) -> None:
    difference = size_difference(image, found)
    if difference is not None:
        raise ImageError(f"{image.path}: {difference}")


def _file_of(image: CameraImage) -> Path:
    return image.path.resolve() if image.path.is_symlink() else image.path
