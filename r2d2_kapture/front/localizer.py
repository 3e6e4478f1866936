"""Localization of single query images in a map that is loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import pycolmap
import torch

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.match import MATCHERS
from r2d2_kapture.config.rotations import read_rotations
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.coordinates import Turn, colmap_from_kapture
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.front.arguments import PathLike, one_or_more
from r2d2_kapture.front.images import ImageExtractor, ImageLike, read_image
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.colmap.sparse_map import (
    read_sparse_map,
    recorded_keypoints_type,
)
from r2d2_kapture.io.georeference import read_georeference
from r2d2_kapture.io.images.gps import read_exif_position
from r2d2_kapture.io.images.orientation import exif_orientation
from r2d2_kapture.io.kapture.feature_table import find_feature_folders
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.refined_features import extracted_type
from r2d2_kapture.io.map_patches import open_patches
from r2d2_kapture.io.outputs.manifest import FILE_NAME, read_manifest
from r2d2_kapture.matching.matcher import (
    Matcher,
    MatchInput,
    build_matcher,
    match_input,
)
from r2d2_kapture.matching.vlad import Vocabulary, learn_centres
from r2d2_kapture.stages.background_io import one_core_a_thread, read_ahead
from r2d2_kapture.stages.localize import (
    Helpers,
    Places,
    PointSearch,
    QueryFrame,
    QueryImage,
    QueryMatches,
    QueryResult,
    Registrar,
    gather_evidence,
    is_searched,
    localize_frame,
    with_exif,
)
from r2d2_kapture.stages.match import InputReader
from r2d2_kapture.stages.two_view import guessed_camera, require_size
from r2d2_kapture.types import FloatArray, IndexArray, LocalFeatures

VISUAL_WORDS = 64
SAMPLED_DESCRIPTORS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """The pose of a query.

    Attributes:
        cam_from_world: its pose; None if none was found.
        inliers: number of distinct map points that agree with it.
        camera: given or found, in COLMAP's pixel origin; None without a pose.
        reason: why there is no pose; None where there is one.
        doubts: why the pose may be wrong although points agree with it; empty for a
            good one.
        features: of the query.
        details: the JSON record of the query, see docs/formats.md; in a map on Earth
            its wgs84 is latitude, longitude (degrees) and altitude (m), and its
            gnss_distance the metres from the position in the photograph's EXIF.
    """

    cam_from_world: pycolmap.Rigid3d | None
    inliers: int
    camera: pycolmap.Camera | None
    reason: str | None
    doubts: tuple[str, ...]
    features: LocalFeatures
    details: QueryResult


class Localizer:
    """Localizes images in a map, as kapture_r2d2_localize does, one at a time.

    Args:
        map_path: map written by kapture_r2d2_map or kapture_r2d2_pipeline.
        extractor: with the weights that extracted the map's features.
        features: folders of the features of the map's images; by default ``features``
            next to the map, where the pipeline writes them.
        keypoints_type: of these; by default the only one there is, that of the map, or
            that of the extractor.
        top_k: number of most similar map images that a query is matched with.
        matcher: name of a matcher, with default settings, or a matcher object.
        rotations: quarter turns in which the network sees a query, until one gives a
            pose; see ``--rotations`` of kapture_r2d2_extract.
        settings: of localization, as the flags of kapture_r2d2_localize are named.

    Raises:
        ConfigError: an unknown setting, or features extracted with other weights.
        DatasetError: there is no map, or no features of its images.
    """

    def __init__(
        self,
        map_path: PathLike,
        extractor: ImageExtractor,
        *,
        features: PathLike | Sequence[PathLike] = (),
        keypoints_type: str | None = None,
        top_k: int = 20,
        matcher: str | Matcher = "mutual_nearest",
        rotations: str = "off",
        **settings: Any,
    ) -> None:
        folder = Path(map_path)
        roots = [Path(path) for path in one_or_more(features)] or [_features_of(folder)]
        chosen = _choose_type(roots, keypoints_type, folder, extractor)
        tables = open_local_features(roots, chosen)
        _refuse_other_weights(tables, extractor)
        self.extractor = extractor
        self.top_k = top_k
        self.rotations = read_rotations(rotations)
        self.config = make_settings(LocalizeConfig, settings)
        self.sparse_map = read_sparse_map(folder, tables.keypoints.type_name)
        self._patches = (
            open_patches(folder, len(self.sparse_map.points))
            if self.config.refine == "auto"
            else None
        )
        self._georeference = read_georeference(folder)
        if isinstance(matcher, str):
            matcher = build_matcher(MATCHERS.settings_of(matcher)())
        self._matcher = matcher
        read = InputReader(
            tables, torch.device("cpu"), with_keypoints=matcher.needs_keypoints
        )
        self._inputs = {name: read(name) for name in self.sparse_map.images}
        self._vocabulary, self._global = _describe(self._inputs, top_k)

    def __call__(
        self, image: ImageLike, camera: pycolmap.Camera | None = None
    ) -> Localization:
        """Find the pose of an image.

        Args:
            image: path, PIL image, or array; see ImageExtractor.
            camera: in COLMAP's pixel origin; None takes the focal length from EXIF if a
                path is given, and estimates or refines it with the pose.

        Raises:
            ImageError: the image cannot be read.
            ConfigError: a camera of images of another size.
        """
        path = Path(image) if isinstance(image, (str, Path)) else None
        first, *others = self._turns(path)
        found = self._localize(image, first, camera)
        for turn in others:
            if found.cam_from_world is not None:
                break
            again = self._localize(image, turn, camera)
            found = again if again.cam_from_world is not None else found
        return found

    def _turns(self, path: Path | None) -> list[Turn]:
        """In which a query is tried, EXIF's first."""
        turns = self.rotations.turns
        if not self.rotations.exif:
            return list(turns)
        exif = 0 if path is None else exif_orientation(path).turn
        first = exif if exif in turns else turns[0]
        others = [turn for turn in turns if turn != first]
        return [first, *(others if self.rotations.by_matching else ())]

    def _localize(
        self, image: ImageLike, turn: Turn, camera: pycolmap.Camera | None
    ) -> Localization:
        # extractors of others may know no turns
        turns = {"turn": turn} if turn else {}
        features = self.extractor(image, **turns)
        if camera is not None:
            require_size("camera", camera, features)
        path = Path(image) if isinstance(image, (str, Path)) else Path("")
        matches = self._match(features)
        query = _query_image(path, features, camera)
        frame = QueryFrame(rig_id=None, images=(query,))
        evidence = gather_evidence(
            frame,
            [matches],
            self.sparse_map,
            self.config,
            self._helpers(image, features),
        )
        position = read_exif_position(path).position if path.name else None
        places = Places(
            georeference=self._georeference,
            gnss={} if position is None else {query.name: position},
        )
        found = places.of(localize_frame(evidence, self.config, "corner")[0])
        return Localization(
            cam_from_world=found.pose if found.localized else None,
            inliers=found.inliers,
            camera=_camera(found.camera) if found.localized else None,
            reason=found.reason,
            doubts=found.doubts,
            features=features,
            details=found,
        )

    def _helpers(self, image: ImageLike, features: LocalFeatures) -> Helpers:
        search = registrar = None
        if is_searched(self.config, refined=self._patches is not None):
            search = PointSearch(
                sparse_map=self.sparse_map,
                of_map=lambda name: self._inputs[name].descriptors.numpy(),
                of_query=lambda _: features.unit_descriptors,
                identify=lambda _: "",
            )
        if self._patches is not None:
            registrar = Registrar(
                patches=self._patches,
                read=lambda _: read_image(image),
                identify=lambda _: "",
            )
        return Helpers(search=search, registrar=registrar)

    def _match(self, features: LocalFeatures) -> QueryMatches:
        """Matches with the map images most similar to the query, one on each core."""
        query = match_input(features, "cpu")
        rows = features.keypoints.astype(np.float64)

        def match(name: str) -> IndexArray:
            return self._matcher(query, self._inputs[name]).indices

        names, cores = self._similar(features.unit_descriptors), torch.get_num_threads()
        with one_core_a_thread(), closing(read_ahead(names, match, cores)) as matching:
            found = {name: indices.result() for name, indices in matching}
        return QueryMatches(
            retrieved=tuple(found),
            absent=0,
            xy=colmap_from_kapture(rows).astype(np.float64),
            matches=found,
        )

    def _similar(self, descriptors: FloatArray) -> list[str]:
        names = list(self._inputs)
        if self._vocabulary is None:
            return names
        similarity = self._global @ self._vocabulary.describe(descriptors)
        best = np.argsort(-similarity, kind="stable")[: self.top_k]
        return [names[i] for i in best]


def _features_of(map_path: Path) -> Path:
    """The features next to a map.

    Raises:
        DatasetError: no map, or no features next to it.
    """
    features = map_path.resolve().parent / "features"
    if features.is_dir():
        return features
    what = "no features next to it" if map_path.is_dir() else "no such folder"
    raise DatasetError(
        f"{map_path}: found {what}, expected the folder of a map that "
        "kapture_r2d2_pipeline made; or give features=, the folder of the features of "
        "its images (of a COLMAP database, what kapture_r2d2_import makes of it)"
    )


def _choose_type(
    roots: Sequence[Path], wanted: str | None, folder: Path, extractor: ImageExtractor
) -> str | None:
    """The keypoints type to open; None where there are not several.

    Raises:
        DatasetError: the type wanted is not there, or neither the map nor the extractor
            says which of several it is.
    """
    folders = [one for root in roots for one in find_feature_folders(root, "keypoints")]
    types = {one.type_name for one in folders}
    if wanted in types:
        return wanted
    expected = f"keypoints_type={wanted!r}"
    if wanted is None:
        if len(types) < 2:
            return None
        of_map = extracted_type(recorded_keypoints_type(folder) or "")
        for name in (of_map, extractor.extractor.label):
            if name in types:
                return name
        expected = "keypoints_type=, that which the map was made of"
    raise DatasetError(
        f"{', '.join(map(str, roots))}: found keypoints types "
        f"{', '.join(sorted(types)) or 'none'}, expected {expected}"
    )


def _describe(
    inputs: Mapping[str, MatchInput], top_k: int
) -> tuple[Vocabulary | None, FloatArray]:
    """A vocabulary and the VLAD row of each image; None if all images are matched."""
    arrays = [features.descriptors.numpy() for features in inputs.values()]
    every = np.concatenate(arrays) if arrays else np.zeros((0, 1), np.float32)
    if len(arrays) <= top_k or len(every) < VISUAL_WORDS:
        return None, np.zeros((0, 0), np.float32)
    step = max(len(every) // SAMPLED_DESCRIPTORS, 1)
    vocabulary = Vocabulary(centres=learn_centres(every[::step], VISUAL_WORDS, seed=0))
    return vocabulary, np.stack([vocabulary.describe(rows) for rows in arrays])


def _refuse_other_weights(
    tables: LocalFeatureTables, extractor: ImageExtractor
) -> None:
    ours = extractor.extractor
    for folder in tables.descriptors.folders:
        found = read_manifest(folder.path / FILE_NAME)
        if found is None:
            continue
        pairs = (
            (found.model.get("sha256"), ours.weights and ours.weights.sha256),
            (found.settings.get("extractor"), ours.name),
        )
        if any(theirs not in (None, own) for theirs, own in pairs):
            raise ConfigError(
                f"{folder.path}: found features of other weights than "
                f"'{ours.label}'; load the extractor that the map was "
                "made with"
            )


def _query_image(
    path: Path, features: LocalFeatures, camera: pycolmap.Camera | None
) -> QueryImage:
    known = camera is not None
    return with_exif(
        QueryImage(
            name=path.name or "query",
            path=path,
            sensor_id="query",
            camera=guessed_camera(features) if camera is None else camera,
            focal_length="fixed" if known else "estimated",
            refine_distortion=not known,
            cam_from_rig=pycolmap.Rigid3d(),
        )
    )


def _camera(parameters: Sequence[str]) -> pycolmap.Camera:
    """Camera from kapture's parameters, with the principal point in COLMAP's origin."""
    model, *values = parameters
    return colmap_camera(kapture.Camera(model, values), 1, "corner")
