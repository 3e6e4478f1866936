"""Features of an evaluation: from our extraction, or from third-party files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from r2d2_kapture.config.extract import AUTO, ExtractConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import PixelOrigin, kapture_from_colmap
from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.evaluation.feature_files import (
    feature_path,
    read_feature_file,
    read_h5_features,
)
from r2d2_kapture.evaluation.sequences import HomographySequence
from r2d2_kapture.extractors.registry import Extractor, build_extractor
from r2d2_kapture.io.features.hdf5 import h5_settings
from r2d2_kapture.io.features.npz import read_npz
from r2d2_kapture.io.features.plain_files import open_feature_files
from r2d2_kapture.io.features.reading import check_inside, is_turned
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.feature_provenance import FeatureRecords
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.kapture.pixel_origins import origins_text
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.image_records import ImageRecord
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    package_versions,
    read_manifest,
)
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.benchmark.results_folder import fingerprint_of
from r2d2_kapture.stages.extract import extract_images, make_manifest
from r2d2_kapture.types import Failure, LocalFeatures

LoadFeatures = Callable[[Path], LocalFeatures]
Evaluate = Callable[[HomographySequence, LoadFeatures], None]
"""Takes a sequence and a way to its features; may raise to end the run."""

IMAGES_NAME = "images.json"
"""Records which images the features were extracted from."""


class FeatureSource(Protocol):
    """Features of images."""

    @property
    def label(self) -> str:
        """What tables and plots call them."""

    @property
    def manifest(self) -> Manifest:
        """What decides them."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not certain of them, as far as they have been read."""

    def files(self, image: Path) -> list[Path]:
        """Files besides the image that they are read from."""

    def feed(
        self,
        sequences: Sequence[HomographySequence],
        evaluate: Evaluate,
        options: RunOptions,
    ) -> list[Failure]:
        """Hand over sequences in order; report which have no features, and why."""

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
    extractor: str = AUTO

    @cached_property
    def _engine(self) -> Extractor:
        return build_extractor(self.extractor, self.checkpoint.network, self.config)

    @property
    def manifest(self) -> Manifest:
        return make_manifest(self.checkpoint, self._engine)

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()

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
        extracted: dict[Path, LocalFeatures] = {}

        def collect(name: str, features: LocalFeatures, record: ImageRecord) -> None:
            nonlocal extracted
            sequence = images[name]
            if not extracted.keys() <= set(sequence.images):
                # images come in order: the sequence before this one is broken
                extracted = {}
            extracted[Path(name)] = features
            if len(extracted) == len(sequence.images):
                evaluate(sequence, extracted.__getitem__)
                extracted = {}

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
        paths = {image.relative_to(root).as_posix(): image for image in images}
        suffix = self._engine.file_style.suffix
        stored = {name: feature_path(folder / name, suffix) for name in paths}
        _forget_changed(paths, stored, folder / IMAGES_NAME)
        with open_feature_files(
            "npz",
            {name: folder / name for name in paths},
            folder,
            self.manifest,
            style=self._engine.file_style,
            force=False,  # a run with --force begins with an empty folder
        ) as files:
            todo = {n: path for n, path in paths.items() if not files.is_complete(n)}
            tally = extract_images(
                self._engine,
                todo,
                files.write,
                options,
                already_done=len(paths) - len(todo),
            )
        reasons = {failure.name: failure.reason for failure in tally.failed}

        def load(image: Path) -> LocalFeatures:
            name = image.relative_to(root).as_posix()
            if name in reasons:
                raise ImageError(reasons[name])
            return read_npz(stored[name])

        return load


def _forget_changed(
    images: Mapping[str, Path], stored: Mapping[str, Path], record: Path
) -> None:
    """Remove features whose image has changed since a run with this record."""
    try:
        known = dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    states = {name: fingerprint_of([path], b"") for name, path in images.items()}
    for name, state in states.items():
        if known.get(name) != state:
            stored[name].unlink(missing_ok=True)
    write_json_atomic(record, known | states)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredFeatures:
    """Features that lie in files, ours or anyone's.

    Attributes:
        label: see FeatureSource.
        place: where they lie, in words, for the manifest.
        load: reads the features of an image as they are in the files.
        locate: gives the files that they are read from.
        made_with: weights and settings, where they are known.
        origin: that the keypoints which are loaded count from.
        notes: what is not certain of the features.
        turned: images whose files give height and width for width and height, as far
            as they have been read.
    """

    label: str
    place: str
    load: LoadFeatures
    locate: Callable[[Path], list[Path]]
    made_with: Manifest | None = None
    origin: PixelOrigin = "center"
    notes: tuple[str, ...] = ()
    turned: set[str] = field(default_factory=set)

    def read(self, image: Path) -> LocalFeatures:
        """Features of an image, counted from pixel centres, of the image's own size.

        An image that cannot be read is taken to have the size that the features say.

        Raises:
            FeatureFormatError: they cannot be read, or are of an image of another size.
            ImageError: neither the features nor the image give the size.
        """
        features = self.load(image)
        try:
            actual = image_size(image)
        except ImageError:
            actual = features.image_size
        if is_turned(features.image_size, actual, str(image)):
            self.turned.add(image.name)
        keypoints = features.keypoints
        if self.origin == "corner":
            keypoints = kapture_from_colmap(keypoints).astype(np.float32)
        check_inside(keypoints, actual, str(image))
        return dataclasses.replace(features, keypoints=keypoints, image_size=actual)

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.turned:
            return self.notes
        names = ", ".join(sorted(self.turned)[:3])
        return (
            *self.notes,
            f"features '{self.label}' give image sizes as height, width (such as of "
            f"{names}); taken for width, height, as those of the images say",
        )

    @property
    def manifest(self) -> Manifest:
        made = self.made_with or Manifest(
            model={}, settings={}, versions=package_versions()
        )
        return dataclasses.replace(
            made,
            model={**made.model, "name": self.label},
            settings={**made.settings, "features": self._place},
        )

    @property
    def _place(self) -> str:
        return self.place + (", from pixel corners" if self.origin == "corner" else "")

    def files(self, image: Path) -> list[Path]:
        return self.locate(image)

    def feed(
        self,
        sequences: Sequence[HomographySequence],
        evaluate: Evaluate,
        options: RunOptions,
    ) -> list[Failure]:
        for sequence in sequences:
            evaluate(sequence, self.read)
        return []

    def prepare(
        self, images: Sequence[Path], root: Path, folder: Path, options: RunOptions
    ) -> LoadFeatures:
        return self.read


def require_some(source: FeatureSource, images: Collection[Path]) -> None:
    """Check that features which lie in files are there for an image at least.

    Raises:
        FeatureFormatError: no image has any.
    """
    files = [path for image in images for path in source.files(image)]
    if files and not any(path.is_file() for path in files):
        raise FeatureFormatError(
            f"{files[0]}: found no such file, nor any for the other {len(images) - 1} "
            f"images; correct where '{source.label}' are read from"
        )


def features_beside_images(
    suffix: str, label: str | None = None, origin: PixelOrigin = "center"
) -> StoredFeatures:
    """Features in a file next to each image, such as ``1.ppm.d2-net``.

    Args:
        suffix: of the files.
        label: see FeatureSource; None is the suffix.
        origin: that keypoints count from.
    """
    plain = suffix.lstrip(".")
    return StoredFeatures(
        label=label or plain,
        place=f"next to the images, .{plain}",
        load=lambda image: read_feature_file(feature_path(image, plain), image),
        locate=lambda image: [feature_path(image, plain)],
        origin=origin,
    )


def features_in_h5(
    path: Path,
    root: Path,
    label: str | None = None,
    origin: PixelOrigin = "center",
) -> StoredFeatures:
    """Features of all images in one file of hloc's layout, named relative to root.

    Args:
        path: of the file.
        root: that names are relative to.
        label: see FeatureSource; None is the name of the file.
        origin: that keypoints count from.

    Raises:
        FeatureFormatError: the file is absent, or of another format.
    """
    h5_settings(path)
    return StoredFeatures(
        label=label or path.stem,
        place=path.name,
        load=lambda image: read_h5_features(
            path, image.relative_to(root).as_posix(), image
        ),
        locate=lambda image: [path],
        origin=origin,
    )


def features_in_kapture(
    tables: LocalFeatureTables,
    root: Path,
    label: str | None = None,
    notes: tuple[str, ...] = (),
) -> StoredFeatures:
    """Features of a kapture dataset, of images named relative to root.

    Args:
        tables: placed by pixel_origins.place_keypoints.
        root: that names are relative to.
        label: see FeatureSource; None is the type of the keypoints.
        notes: what is not certain of the features.

    Raises:
        FeatureFormatError: the manifest beside them is broken.
    """
    types = (tables.keypoints.type_name, tables.descriptors.type_name)
    counted = origins_text(tables.keypoints)

    records = FeatureRecords(tables.keypoints)

    def load(image: Path) -> LocalFeatures:
        name = image.relative_to(root).as_posix()
        reason = records.objection(name, image)
        if reason is not None:
            raise FeatureFormatError(reason)
        return tables.read(name, image_size(image))

    def locate(image: Path) -> list[Path]:
        name = image.relative_to(root).as_posix()
        found = (tables.keypoints.locate(name), tables.descriptors.locate(name))
        return [located[1] for located in found if located is not None]

    return StoredFeatures(
        label=label or types[0],
        place=f"kapture keypoints '{types[0]}', descriptors '{types[1]}'"
        + ("" if counted == "center" else f", {counted}"),
        load=load,
        notes=notes,
        locate=locate,
        # that of the descriptors names the keypoints that they belong to
        made_with=read_manifest(tables.descriptors.folders[0].path / FILE_NAME),
    )
