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
"""Called with a sequence and a function that loads its features; may raise to end the
run."""

IMAGES_NAME = "images.json"
"""Records which images the features were extracted from."""


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
        """Uncertainties found while reading the features, as sentences."""

    def files(self, image: Path) -> list[Path]:
        """Files that the features are read from, besides the image."""

    def feed(
        self,
        sequences: Sequence[HomographySequence],
        evaluate: Evaluate,
        options: RunOptions,
    ) -> list[Failure]:
        """Pass sequences on in order; report those without features, with the
        reason."""

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
                # images come in order, so the previous sequence is incomplete
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
            force=False,  # a run with --force starts with an empty folder
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
    """Features read from files, our own or third-party.

    Attributes:
        label: see FeatureSource.
        place: description of the files, for the manifest.
        load: reads the features of an image without any conversion.
        locate: returns the files that they are read from.
        made_with: weights and settings, if known.
        origin: pixel origin of the keypoints that ``load`` returns.
        notes: uncertainties of the features, as sentences.
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

        If the image cannot be read, its size is taken from the features.

        Raises:
            FeatureFormatError: they cannot be read, or belong to an image of another
                size.
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
            f"features '{self.label}' state image sizes as height, width (such as "
            f"{names}); they are read as width, height, in agreement with the images",
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


def features_beside_images(
    suffix: str, label: str | None = None, origin: PixelOrigin = "center"
) -> StoredFeatures:
    """Features in a file next to each image, such as ``1.ppm.d2-net``.

    Args:
        suffix: of the files.
        label: see FeatureSource; None is the suffix.
        origin: pixel origin of the keypoints.
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
        origin: pixel origin of the keypoints.

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
        notes: uncertainties of the features, as sentences.

    Raises:
        FeatureFormatError: their manifest is broken.
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
        # the manifest of the descriptors names their keypoints
        made_with=read_manifest(tables.descriptors.folders[0].path / FILE_NAME),
    )
