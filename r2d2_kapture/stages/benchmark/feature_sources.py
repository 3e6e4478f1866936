"""Sources of the features of an evaluation; our extraction is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from r2d2_kapture.config.rotations import OFF, Rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.io.features.npz import read_npz
from r2d2_kapture.io.features.plain_files import open_feature_files
from r2d2_kapture.io.outputs.image_changes import outstanding
from r2d2_kapture.io.outputs.image_records import ImageRecord
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.stages.benchmark.benchmark import Item, LoadFeatures, Subject
from r2d2_kapture.stages.extract import (
    Turning,
    extract_images,
    make_manifest,
    turns_like_the_first,
)
from r2d2_kapture.types import Failure, LocalFeatures

Evaluate = Callable[[Item[Subject], LoadFeatures], None]
"""Called with an item and a function that loads its features; may raise to end the
run."""


class FeatureSource(Protocol):
    """Source of the features of images."""

    @property
    def label(self) -> str:
        """Name of the features in tables and plots."""

    @property
    def manifest(self) -> Manifest:
        """Settings that determine the features."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Uncertainties found while making or reading the features, as sentences."""

    def files(self, image: Path) -> list[Path]:
        """Files that the features are read from, besides the image."""

    def prepare(
        self, images: Sequence[Path], root: Path, folder: Path, options: RunOptions
    ) -> LoadFeatures:
        """Make the features of images ready to be loaded in any order.

        Args:
            images: below root.
            root: that their names are relative to.
            folder: where features may be kept.
            options: how to run.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtractedFeatures:
    """Features extracted by this package, one image after another.

    Attributes:
        label: see FeatureSource.
        extractor: with its weights and settings.
        rotations: quarter turns in which it sees images; those of items without shared
            images match the first one.
    """

    label: str
    extractor: Extractor
    rotations: Rotations = OFF

    @property
    def manifest(self) -> Manifest:
        return make_manifest(self.extractor, self.rotations)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.extractor.warnings

    def files(self, image: Path) -> list[Path]:
        return []

    def feed(
        self,
        items: Sequence[Item[Subject]],
        evaluate: Evaluate[Subject],
        options: RunOptions,
    ) -> list[Failure]:
        """Pass items without a shared image on as they are extracted, in order.

        Returns:
            Items without features, with the reason.
        """
        images = {str(image): item for item in items for image in item.images}
        extracted: dict[Path, LocalFeatures] = {}

        def collect(name: str, features: LocalFeatures, record: ImageRecord) -> None:
            nonlocal extracted
            item = images[name]
            if not extracted.keys() <= set(item.images):
                # images come in order, so the previous item is incomplete
                extracted = {}
            extracted[Path(name)] = features
            if len(extracted) == len(item.images):
                evaluate(item, extracted.__getitem__)
                extracted = {}

        tally = extract_images(
            self.extractor,
            {name: Path(name) for name in images},
            collect,
            dataclasses.replace(options, progress=False),
            turns=self._turns(items),
        )
        reasons = {images[one.name].name: one.reason for one in tally.failed}
        return [Failure(name=name, reason=reason) for name, reason in reasons.items()]

    def _turns(self, items: Sequence[Item[Subject]]) -> dict[str, Turn]:
        """Turns by the path of an image; none where images stay as stored."""
        if self.rotations.is_off:
            return {}
        return {
            str(image): turn
            for item in items
            for image, turn in zip(
                item.images,
                turns_like_the_first(self.extractor, self.rotations, item.images),
            )
        }

    def prepare(
        self, images: Sequence[Path], root: Path, folder: Path, options: RunOptions
    ) -> LoadFeatures:
        paths = {image.relative_to(root).as_posix(): image for image in images}
        suffix = self.extractor.file_style.suffix
        stored = {name: feature_path(folder / name, suffix) for name in paths}
        with open_feature_files(
            "npz",
            {name: folder / name for name in paths},
            folder,
            self.manifest,
            style=self.extractor.file_style,
            force=False,  # a run with --force starts with an empty folder
        ) as files:
            todo = outstanding(paths, files).images
            turning = Turning(rotations=self.rotations, folder=folder)
            turns = turning.turns(self.extractor, paths, todo, options)
            tally = extract_images(
                self.extractor,
                todo,
                files.write,
                options,
                turns=turns.of,
                already_done=len(paths) - len(todo),
            )
        reasons = {failure.name: failure.reason for failure in tally.failed}

        def load(image: Path) -> LocalFeatures:
            name = image.relative_to(root).as_posix()
            if name in reasons:
                raise ImageError(reasons[name])
            return read_npz(stored[name])

        return load


def require_some(source: FeatureSource, images: Collection[Path]) -> None:
    """Check that feature files exist for at least one image.

    Raises:
        FeatureFormatError: no image has any.
    """
    files = [path for image in images for path in source.files(image)]
    if files and not any(path.is_file() for path in files):
        raise FeatureFormatError(
            f"{files[0]}: found no such file, nor one for the other {len(images) - 1} "
            f"images; correct the location of the features '{source.label}'"
        )
