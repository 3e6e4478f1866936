"""Pictures of a pair of images from stored features, and matches if there are any."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import h5py

from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.config.view import ViewConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.feature_files import read_h5_features
from r2d2_kapture.io.colmap.cameras import image_cameras
from r2d2_kapture.io.features.hdf5 import h5_names, read_h5_matches
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.pixel_origins import (
    FoundOrigin,
    find_camera_origin,
    place_keypoints,
)
from r2d2_kapture.matching.matcher import build_matcher
from r2d2_kapture.stages.two_view import Cameras, match
from r2d2_kapture.stages.view.images import known_cameras, matched_pair
from r2d2_kapture.stages.view.pair import report_of
from r2d2_kapture.stages.view.sources import RECORDS, image_file, require_images
from r2d2_kapture.types import LocalFeatures, PairMatches, Report, some_names

TwoFeatures = tuple[LocalFeatures, LocalFeatures]
TwoPaths = tuple[Path, Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The stored data of a pair, see run_features."""

    pair: tuple[str, str]
    features: Sequence[Path]
    matches: Sequence[Path]
    kapture_root: Path | None
    images: Path | None

    @property
    def roots(self) -> list[Path]:
        """Folders of features, the dataset last."""
        own = [] if self.kapture_root is None else [self.kapture_root]
        return [*self.features, *own]

    @property
    def folder(self) -> Path:
        """The folder that names are relative to.

        Raises:
            DatasetError: no folder is given.
        """
        if self.images is not None:
            return self.images
        if self.kapture_root is None:
            raise DatasetError(
                "--images: found none, expected the folder that the names of --pair "
                "are relative to"
            )
        return self.kapture_root / RECORDS

    @property
    def paths(self) -> TwoPaths:
        """The files of the two images.

        Raises:
            DatasetError: one is missing.
        """
        folder = self.folder
        return image_file(folder, self.pair[0]), image_file(folder, self.pair[1])


def run_features(
    config: ViewConfig,
    matching: MatchConfig,
    verification: VerifyConfig,
    *,
    pair: tuple[str, str],
    features: Sequence[Path] = (),
    matches: Sequence[Path] = (),
    kapture_root: Path | None = None,
    images: Path | None = None,
    output_dir: Path = Path(),
) -> Report:
    """Draw a pair with stored features and stored matches, or else new matches.

    Args:
        config: of the cameras, if no dataset has them.
        matching: settings, if no matches are stored.
        verification: settings.
        pair: names of the images.
        features: HDF5 file of hloc's layout, or kapture folders of features, to draw
            --pair from; images without stored matches are matched.
        matches: HDF5 file of hloc's layout, or kapture folders, of matches of
            --features.
        kapture_root: dataset to draw --pair from, with its cameras, features and
            matches.
        images: folder that names are relative to; None takes that of the dataset.
        output_dir: folder of pictures and numbers, see write_pair.

    Raises:
        DatasetError, FeatureFormatError: an input is missing or broken.
        ImageError: an image cannot be read.
        OutputError: files cannot be written.
    """
    started = time.monotonic()
    inputs = _Inputs(
        pair=pair,
        features=features,
        matches=matches,
        kapture_root=kapture_root,
        images=images,
    )
    notes: Sequence[str] = ()
    cameras = None
    roots = inputs.roots
    if h5py.is_hdf5(roots[0]):
        both, matched = _read_h5(roots[0], inputs)
    else:
        both, matched, cameras, notes = _read_kapture(inputs)
    if matched is None:
        matched = match(*both, matcher=build_matcher(matching.matcher))
        found = "no stored matches of this pair: it was matched now"
    else:
        found = "stored"
    viewed = matched_pair(
        inputs.pair,
        inputs.paths,
        both,
        matched,
        verification,
        cameras or known_cameras(config, inputs.paths, both),
        {"features": [str(root) for root in roots], "matches_from": found},
    )
    if found != "stored":
        notes = [*notes, found]
    return report_of(viewed, output_dir, started, notes)


def _read_h5(path: Path, inputs: _Inputs) -> tuple[TwoFeatures, PairMatches | None]:
    require_images(path, h5_names(path), *inputs.pair)
    first, second = (
        read_h5_features(path, name, image, as_stored=bool(inputs.matches))
        for name, image in zip(inputs.pair, inputs.paths)
    )
    if not inputs.matches:
        return (first, second), None
    return (first, second), read_h5_matches(inputs.matches[0], *inputs.pair)


def _read_kapture(
    inputs: _Inputs,
) -> tuple[TwoFeatures, PairMatches | None, Cameras | None, Sequence[str]]:
    tables = open_local_features(inputs.roots)
    cameras: Cameras | None = None
    notes: tuple[str, ...] = ()
    if inputs.kapture_root is not None:
        dataset = open_dataset(inputs.kapture_root)
        require_images(inputs.kapture_root, dataset.image_names, *inputs.pair)
        origin = find_camera_origin(dataset, "auto")
        keypoints, notes = place_keypoints(tables.keypoints, "auto", dataset, origin)
        tables = dataclasses.replace(tables, keypoints=keypoints)
        cameras = _cameras(dataset, origin, inputs.pair)
    require_images(_place(tables), tables.keypoints.image_names, *inputs.pair)
    first, second = (
        tables.read(name, image_size(path))
        for name, path in zip(inputs.pair, inputs.paths)
    )
    stored = find_matches([*inputs.matches, *inputs.roots], tables.keypoints.type_name)
    matches = stored.read(*inputs.pair)
    if matches is None and inputs.matches:
        raise DatasetError(_no_matches(inputs, stored.pairs))
    return (first, second), matches, cameras, notes


def _place(tables: LocalFeatureTables) -> Path:
    return tables.keypoints.folders[0].path


def _cameras(
    dataset: Dataset, origin: FoundOrigin, pair: tuple[str, str]
) -> Cameras | None:
    """The cameras of two images of a dataset; None if one is unknown."""
    cameras = image_cameras(dataset.data, origin.origin)
    first, second = (cameras[name] for name in pair)
    known = first.has_prior_focal_length and second.has_prior_focal_length
    return (first, second) if known else None


def _no_matches(inputs: _Inputs, pairs: Sequence[tuple[str, str]]) -> str:
    """The error on a pair without matches."""
    name, other = inputs.pair
    partners = [b if a == name else a for a, b in pairs if name in (a, b)]
    there = some_names(partners) if partners else "no image"
    return (
        f"{inputs.matches[0]}: found no matches of '{name}' and '{other}'; '{name}' is "
        f"matched with {there}"
    )
