"""Features of an evaluation that are read from files, our own or third-party."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import CameraOrigin, PixelOrigin, kapture_from_colmap
from r2d2_kapture.errors import ConfigError, FeatureFormatError, ImageError
from r2d2_kapture.evaluation.feature_files import (
    feature_path,
    read_feature_file,
    read_h5_features,
)
from r2d2_kapture.io.features.hdf5 import h5_settings
from r2d2_kapture.io.features.reading import check_inside, is_turned
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_provenance import FeatureRecords
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.pixel_origins import (
    find_camera_origin,
    origins_text,
    place_keypoints,
)
from r2d2_kapture.io.outputs.manifest import (
    FILE_NAME,
    Manifest,
    package_versions,
    read_manifest,
)
from r2d2_kapture.stages.benchmark.benchmark import LoadFeatures
from r2d2_kapture.types import LocalFeatures


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

    def prepare(
        self, images: Sequence[Path], root: Path, folder: Path, options: RunOptions
    ) -> LoadFeatures:
        return self.read


def open_stored(
    root: Path,
    *,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    features_suffix: str | None = None,
    features_h5: Path | None = None,
    keypoint_origin: CameraOrigin = "auto",
    label: str | None = None,
    kapture_root: Path | None = None,
    camera_origin: CameraOrigin = "auto",
) -> StoredFeatures:
    """Existing features of images, from files or of a kapture dataset.

    Args:
        root: folder that names of images are relative to.
        keypoints_type: evaluate these features of the kapture dataset instead of
            extracting features.
        descriptors_type: type of their descriptors.
        features_suffix: read features from files next to the images instead of
            extracting them: d2-net reads 1.ppm.d2-net, a NumPy archive.
        features_h5: file of features in hloc's layout, read instead of extracting, with
            names relative to the folder of the images.
        keypoint_origin: pixel origin of these features: the ``center`` of the first
            pixel or its ``corner`` (COLMAP); ``auto`` is the center for files, as R2D2,
            D2-Net and hloc write them, and for kapture as recorded, else that of its
            cameras.
        label: name of the features in tables; by default that of the model, or of the
            files.
        kapture_root: the dataset.
        camera_origin: pixel origin of its principal points.

    Raises:
        ConfigError: there is no dataset of the ``keypoints_type``.
        FeatureFormatError, DatasetError: the features cannot be read.
    """
    origin: PixelOrigin = "corner" if keypoint_origin == "corner" else "center"
    if features_suffix is not None:
        return features_beside_images(features_suffix, label, origin)
    if features_h5 is not None:
        return features_in_h5(features_h5, root, label, origin)
    if kapture_root is None:
        raise ConfigError(
            "--keypoints-type: expected with --kapture-root, and no other features"
        )
    tables = open_local_features([kapture_root], keypoints_type, descriptors_type)
    dataset = open_dataset(kapture_root)
    keypoints, notes = place_keypoints(
        tables.keypoints,
        keypoint_origin,
        dataset,
        find_camera_origin(dataset, camera_origin),
    )
    tables = dataclasses.replace(tables, keypoints=keypoints)
    return features_in_kapture(tables, root, label, notes)


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
