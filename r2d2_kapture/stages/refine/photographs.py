"""Work on one photograph: cut the patches of its references, register the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from r2d2_kapture.stages.refine.scratch import Found, Scratch
from r2d2_kapture.stages.refine.tracks import Numbering, Tracks
from r2d2_kapture.types import IndexArray

NOTHING = Found(
    numbers=np.zeros(0, np.int64),
    steps=np.zeros((0, 2)),
    before=np.zeros(0, np.float32),
    after=np.zeros(0, np.float32),
    outcomes=np.zeros(0, np.int8),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Photographs:
    """The photographs of a run; safe to use from several threads.

    Attributes:
        config: settings of registration.
        images: the files, by position.
        keypoints: of all images.
        tracks: of the keypoints.
        scratch: with the patches of references.
    """

    config: RefineConfig
    images: tuple[CameraImage, ...]
    keypoints: Numbering
    tracks: Tracks
    scratch: Scratch

    def has_references(self, image: int) -> bool:
        """Whether keypoints of others are registered against some in an image."""
        return len(self.tracks.references_in(self.keypoints.of(image))) > 0

    def needed(self, image: int) -> set[int]:
        """The images with the references of the keypoints in an image."""
        numbers = self.tracks.observations_in(self.keypoints.of(image))
        images = self.keypoints.images_of(self.tracks.references[numbers])
        return set(images.tolist())

    def cut(self, image: int) -> Templates:
        """The patches of the references in an image.

        Raises:
            ImageError: the photograph cannot be read, or is none of its camera.
        """
        numbers = self.tracks.references_in(self.keypoints.of(image))
        grey, _ = _read(self.images[image])
        return cut_templates(
            grey,
            self.keypoints.xy[numbers].astype(np.float64)
            + self.tracks.offsets[numbers],
            scale_frames(self.keypoints.sides[numbers]),
            self.config,
        )

    def find(self, image: int, unreadable: Mapping[int, str]) -> Found:
        """Register the keypoints of an image against their references.

        Args:
            image: its position.
            unreadable: positions of images that have no patches, and why.
        """
        if image in unreadable:
            return dataclasses.replace(NOTHING, failure=unreadable[image])
        keypoints = self.keypoints.of(image)
        numbers = self.tracks.observations_in(keypoints)
        images = self.keypoints.images_of(self.tracks.references[numbers])
        readable = np.array([i not in unreadable for i in images.tolist()], np.bool_)
        numbers, images = numbers[readable], images[readable]
        try:
            if not len(numbers):
                return dataclasses.replace(NOTHING, record=_record(self.images[image]))
            grey, record = _read(self.images[image])
        except ImageError as error:
            return dataclasses.replace(NOTHING, failure=str(error))
        found = self._register(grey, numbers, images)
        return Found(
            numbers=numbers,
            steps=found.keypoints - self.keypoints.xy[numbers].astype(np.float64),
            before=found.before,
            after=found.after,
            outcomes=found.outcomes,
            record=record,
        )

    def _register(
        self, grey: GreyImage, numbers: IndexArray, images: IndexArray
    ) -> Registration:
        """Register keypoints against references that lie in the given images."""
        references = self.tracks.references[numbers].astype(np.int64)
        affinities = self.tracks.affinities[numbers].astype(np.float64)
        return register(
            self._templates(references, images),
            grey,
            self.keypoints.xy[numbers].astype(np.float64),
            affinities @ scale_frames(self.keypoints.sides[references]),
            self.config,
        )

    def _templates(self, references: IndexArray, images: IndexArray) -> Templates:
        order = np.argsort(images, kind="stable")
        parts = []
        for part in np.split(order, np.flatnonzero(np.diff(images[order])) + 1):
            image = int(images[part[0]])
            there = self.tracks.references_in(self.keypoints.of(image))
            rows = np.searchsorted(there, references[part])
            parts.append(self.scratch.read_templates(image, rows))
        in_order = Templates(
            pixels=np.concatenate([part.pixels for part in parts]),
            zooms=np.concatenate([part.zooms for part in parts]),
        )
        return in_order.take(np.argsort(order))


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
    check_header(image)
    return record_image(path, stamp, image.size)


def check_header(image: CameraImage) -> None:
    """Refuse a photograph that is missing or none of its camera, by its header.

    Raises:
        ImageError: naming it.
    """
    _check_size(image, image_size(_file_of(image)))


def _check_size(image: CameraImage, found: tuple[int, int]) -> None:
    difference = size_difference(image, found)
    if difference is not None:
        raise ImageError(f"{image.path}: {difference}")


def _file_of(image: CameraImage) -> Path:
    return image.path.resolve() if image.path.is_symlink() else image.path
