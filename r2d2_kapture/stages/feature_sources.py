"""Where the features of an evaluation come from: our extraction, or files of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ImageError
from r2d2_kapture.evaluation.feature_files import (
    feature_path,
    read_feature_file,
    read_h5_features,
)
from r2d2_kapture.evaluation.sequences import HomographySequence
from r2d2_kapture.extractors.registry import Extractor, build_extractor
from r2d2_kapture.io.feature_table import LocalFeatureTables
from r2d2_kapture.io.images import image_size
from r2d2_kapture.io.manifest import Manifest, package_versions
from r2d2_kapture.io.npz import read_npz
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages import extract_files
from r2d2_kapture.stages.extract import extract_images, make_manifest
from r2d2_kapture.types import Failure, LocalFeatures

LoadFeatures = Callable[[Path], LocalFeatures]
Evaluate = Callable[[HomographySequence, LoadFeatures], bool]
"""Takes a sequence and a way to its features; tells whether to go on."""


class FeatureSource(Protocol):
    """Features of images."""

    @property
    def label(self) -> str:
        """What tables and plots call them."""

    @property
    def manifest(self) -> Manifest:
        """What decides them."""

    def files(self, image: Path) -> list[Path]:
        """Files besides the image that they are read from."""

    def feed(
        self,
        sequences: Sequence[HomographySequence],
        evaluate: Evaluate,
        options: RunOptions,
    ) -> list[Failure]:
        """Hand over sequences in order, and tell which have no features, and why."""

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
    """Features that we extract; the network sees the images one after another.

    Attributes:
        label: see FeatureSource.
        config: of the extraction.
        checkpoint: the weights.
        extractor: a name of extractors.registry.
    """

    label: str
    config: ExtractConfig
    checkpoint: Checkpoint
    extractor: str = "r2d2"

    @cached_property
    def _engine(self) -> Extractor:
        return build_extractor(self.extractor, self.checkpoint.network, self.config)

    @property
    def manifest(self) -> Manifest:
        return make_manifest(self.config, self.checkpoint, self.extractor, self._engine)

    def files(self, image: Path) -> list[Path]:
        return []

    def feed(
        self,
        sequences: Sequence[HomographySequence],
        evaluate: Evaluate,
        options: RunOptions,
    ) -> list[Failure]:
        images = {
            str(image): sequence for sequence in sequences for image in sequence.images
        }
        waiting: dict[str, dict[Path, LocalFeatures]] = {}

        def collect(name: str, features: LocalFeatures) -> None:
            sequence = images[name]
            extracted = waiting.setdefault(sequence.name, {})
            extracted[Path(name)] = features
            if len(extracted) == len(sequence.images):
                evaluate(sequence, waiting.pop(sequence.name).__getitem__)

        tally = extract_images(
            self._engine,
            {name: Path(name) for name in images},
            collect,
            dataclasses.replace(options, progress=False),
        )
        reasons = {images[item.name].name: item.reason for item in tally.failed}
        return [Failure(name=name, reason=reason) for name, reason in reasons.items()]

    def prepare(
        self, images: Sequence[Path], root: Path, folder: Path, options: RunOptions
    ) -> LoadFeatures:
        report = extract_files.run(
            self.config,
            images=images,
            checkpoint=self.checkpoint,
            extractor=self.extractor,
            output_dir=folder,
            image_root=root,
            options=options,
        )

        reasons = {failure.name: failure.reason for failure in report.failed}

        def load(image: Path) -> LocalFeatures:
            name = image.relative_to(root).as_posix()
            if name in reasons:
                raise ImageError(reasons[name])
            return read_npz(feature_path(folder / name, "r2d2"))

        return load


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredFeatures:
    """Features that lie in files, ours or anyone's.

    Attributes:
        label: see FeatureSource.
        place: where they lie, in words, for the manifest.
        load: reads the features of an image.
        locate: gives the files that they are read from.
    """

    label: str
    place: str
    load: LoadFeatures
    locate: Callable[[Path], list[Path]]

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            model={"name": self.label},
            settings={"features": self.place},
            versions=package_versions(),
        )

    def files(self, image: Path) -> list[Path]:
        return self.locate(image)

    def feed(
        self,
        sequences: Sequence[HomographySequence],
        evaluate: Evaluate,
        options: RunOptions,
    ) -> list[Failure]:
        for sequence in sequences:
            if not evaluate(sequence, self.load):
                break
        return []

    def prepare(
        self, images: Sequence[Path], root: Path, folder: Path, options: RunOptions
    ) -> LoadFeatures:
        return self.load


def features_beside_images(suffix: str, label: str | None = None) -> StoredFeatures:
    """Features in a file beside each image, such as ``1.ppm.d2-net``."""
    plain = suffix.lstrip(".")
    return StoredFeatures(
        label=label or plain,
        place=f"beside the images, .{plain}",
        load=lambda image: read_feature_file(feature_path(image, plain), image),
        locate=lambda image: [feature_path(image, plain)],
    )


def features_in_h5(path: Path, root: Path, label: str | None = None) -> StoredFeatures:
    """Features of all images in one file of hloc's layout, named relative to root."""
    return StoredFeatures(
        label=label or path.stem,
        place=path.name,
        load=lambda image: read_h5_features(path, image.relative_to(root).as_posix()),
        locate=lambda image: [path],
    )


def features_in_kapture(
    tables: LocalFeatureTables, root: Path, label: str | None = None
) -> StoredFeatures:
    """Features of a kapture dataset, of images named relative to root."""
    types = (tables.keypoints.type_name, tables.descriptors.type_name)

    def load(image: Path) -> LocalFeatures:
        return tables.read(image.relative_to(root).as_posix(), image_size(image))

    return StoredFeatures(
        label=label or types[0],
        place=f"kapture keypoints '{types[0]}', descriptors '{types[1]}'",
        load=load,
        locate=lambda image: [],
    )
