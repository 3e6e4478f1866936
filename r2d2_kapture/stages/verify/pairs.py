"""Verification of many pairs: in threads, resumable, the same for any number of them.

After each pair its verified matches are written as a kapture file, then its geometry as
a line of a log, from which runs resume. A line has a digest of the pair's inputs: a
pair is verified again if its keypoints, matches, cameras, poses or settings have
changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.colmap.database import colmap_keypoints, colmap_matches
from r2d2_kapture.io.colmap.geometry_log import (
    LOG_NAME,
    LoggedGeometries,
    PairGeometry,
    log_geometry,
    pair_geometry,
    read_geometries,
)
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.kapture.match_store import (
    ARCHIVE_NAME,
    CONTENTS,
    MatchTable,
    MatchWriter,
    find_matches,
    is_in_other_layout,
    matches_folder,
    open_match_writer,
)
from r2d2_kapture.io.outputs.json_log import open_log
from r2d2_kapture.io.outputs.ledger import is_made_with
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.io.stores.reading import file_count
from r2d2_kapture.stages.background_io import one_core_a_thread, read_ahead
from r2d2_kapture.stages.match import LoadingCache
from r2d2_kapture.stages.verify.descriptors import DescriptorSource
from r2d2_kapture.stages.verify.guided import add_guided
from r2d2_kapture.stages.verify.two_view import Indices, verify_matches
from r2d2_kapture.types import Failure, FloatArray, IndexArray, PairMatches

CACHED_IMAGES = 1024
"""Whose keypoints stay in memory."""
CACHED_BYTES = 1 << 30
"""Of descriptors."""

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """The inputs of verification of one image.

    Attributes:
        camera: in COLMAP's pixel origin.
        keypoints: (N, 2) in COLMAP's pixel origin.
        cam_from_world: its pose, if it is used.
        digest: of the other fields.
    """

    camera: pycolmap.Camera
    keypoints: FloatArray
    cam_from_world: pycolmap.Rigid3d | None
    digest: str


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """The inputs of verification of all images.

    Attributes:
        cameras: of each image by name, in COLMAP's pixel origin.
        read_keypoints: returns the keypoints of an image: x and y first, (0, 0) at the
            centre of the first pixel.
        poses: cam_from_world by image name; None estimates the geometry of pairs.
        descriptors: for guided matching; None without it.
        digests: of images that have been read.
    """

    cameras: Mapping[str, pycolmap.Camera]
    read_keypoints: Callable[[str], FloatArray]
    poses: Mapping[str, pycolmap.Rigid3d] | None = None
    descriptors: DescriptorSource | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def digest(self, name: str) -> str:
        """Digest of the inputs of verification of an image; it is read once.

        Raises:
            FeatureFormatError: its keypoints cannot be read.
        """
        return self.digests.get(name) or self.view(name).digest

    def view(self, name: str) -> View:
        """Read the inputs of verification of an image.

        Raises:
            FeatureFormatError: its keypoints cannot be read.
        """
        camera = self.cameras[name]
        keypoints = colmap_keypoints(name, self.read_keypoints(name))
        pose = None if self.poses is None else self.poses.get(name)
        digest = hashlib.sha256(np.ascontiguousarray(keypoints).tobytes())
        digest.update(repr(_description(camera, pose)).encode())
        if self.descriptors is not None:
            digest.update(self.descriptors.states[name].encode())
        self.digests[name] = digest.hexdigest()
        return View(
            camera=camera,
            keypoints=keypoints,
            cam_from_world=pose,
            digest=self.digests[name],
        )


def _description(
    camera: pycolmap.Camera, pose: pycolmap.Rigid3d | None
) -> tuple[object, ...]:
    return (
        camera.model_name,
        camera.width,
        camera.height,
        camera.params.tolist(),
        camera.has_prior_focal_length,
        None if pose is None else pose.matrix().tolist(),
    )


@dataclass(kw_only=True)
class VerifiedPairs:
    """The result of verification, of which geometries stay in their log.

    Attributes:
        table: of the verified matches.
        log: of the geometries.
        pairs: those without a failure, in order of names.
        failed: the other pairs, with reasons.
        done: number of pairs verified by this run.
        verified: pairs with inliers.
        matches, inliers, guided: sums of these counts, see PairGeometry.
        is_empty: whether the folder has no geometry.
        stored: what a report says of the files.
    """

    table: MatchTable
    log: LoggedGeometries
    pairs: list[Pair] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    done: int = 0
    verified: int = 0
    matches: int = 0
    inliers: int = 0
    guided: int = 0
    is_empty: bool = False
    stored: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, found: PairGeometry, *, is_new: bool) -> None:
        """Count a geometry, which is in its log."""
        self.pairs.append(found.pair)
        self.done += is_new
        self.verified += found.inliers > 0
        self.matches += found.matches
        self.inliers += found.inliers
        self.guided += found.guided
        self._digest.update(f"{json.dumps(found.pair)} {found.inputs}\n".encode())

    def geometry(self, image1: str, image2: str) -> pycolmap.TwoViewGeometry | None:
        """The geometry of one of the pairs with its inliers."""
        matches = self.table.read(image1, image2)
        if matches is None:
            return None
        return self.log[image1, image2].two_view_geometry(matches.indices)

    def digest(self) -> str:
        """Digest of the inputs of all geometries."""
        return self._digest.hexdigest()

    def details(self) -> dict[str, int]:
        """Counts for a report."""
        return {
            "pairs": len(self.pairs),
            "verified_pairs": self.verified,
            "matches": self.matches,
            "inliers": self.inliers,
            **({"guided_matches": self.guided} if self.guided else {}),
            **self.stored,
        }


def verify_pairs(
    config: VerifyConfig,
    *,
    images: ImageSource,
    matches: MatchTable,
    pairs: Sequence[Pair],
    output: Path,
    manifest: Manifest,
    options: RunOptions,
    store: Store = "files",
    whole: Path | None = None,
    fill: Callable[[], None] = lambda: None,
) -> VerifiedPairs:
    """Verify the matches of pairs, resuming an earlier run.

    Args:
        config: thresholds and seed.
        images: cameras, keypoints and poses.
        matches: of the pairs; pairs without matches fail.
        pairs: sorted names, in order.
        output: kapture folder for the verified matches.
        manifest: of the folder.
        options: how to run.
        store: layout of the verified matches.
        whole: that of all slices, whose pairs are not verified again.
        fill: adds pairs that were verified elsewhere, to the folder that is locked.

    Raises:
        FeatureFormatError: a pair cannot be verified, and options.strict.
        OutputError: the folder has matches of other settings, another run is writing to
            it, or it cannot be written.
    """
    keypoints_type = matches.keypoints_type
    folder = matches_folder(output, keypoints_type)
    with open_match_writer(output, keypoints_type, manifest, options, store) as writer:
        if options.force or writer.emptied:
            (folder / LOG_NAME).unlink(missing_ok=True)
        fill()
        log = read_geometries(folder / LOG_NAME)
        roots, known = [output], [log]
        if whole is not None and whole != output and not options.force:
            there = matches_folder(whole, keypoints_type)
            is_in_other_layout(there, manifest, options, store)
            if is_made_with(there, CONTENTS, manifest, options):
                roots.append(whole)
                known.append(read_geometries(there / LOG_NAME))
        task = _Task(
            config=config,
            images=images,
            matches=matches,
            known=known,
            writer=writer,
            written=find_matches(roots, keypoints_type),
        )
        found = VerifiedPairs(table=task.written, log=log)
        _run(task, pairs, found, options)
        found.is_empty = not log.path.stat().st_size
        if whole in (None, output):
            # of earlier pairs, which will not be in the database
            wanted = set(found.pairs)
            writer.remove(lambda pair: pair not in wanted)
        found.stored = file_count(store, {ARCHIVE_NAME: folder})
    found.table = find_matches(roots, keypoints_type)
    return found


def verified_manifest(keypoints_type: str, settings: Mapping[str, object]) -> Manifest:
    """The manifest of verified matches of keypoints."""
    return Manifest(
        model={"name": keypoints_type},
        settings=dict(settings),
        versions=package_versions() | {"pycolmap": pycolmap.__version__},
    )


def _run(
    task: _Task, pairs: Sequence[Pair], result: VerifiedPairs, options: RunOptions
) -> None:
    bar = Progress(
        "verify",
        "pair",
        len(pairs),
        shown=options.progress,
        also=options.on_progress,
    )
    working = closing(read_ahead(pairs, task, options.workers))
    with ExitStack() as stack:
        stack.enter_context(bar)
        stack.enter_context(quiet_pycolmap())
        log = stack.enter_context(open_log(result.log.path))
        if task.config.guided:
            stack.enter_context(one_core_a_thread())
        verified = stack.enter_context(working)
        for pair, future in verified:
            bar.update()
            try:
                found, known = future.result()
            except FeatureFormatError as error:
                if options.strict:
                    raise
                name = f"'{pair[0]}', '{pair[1]}'"
                result.failed.append(Failure(name=name, reason=str(error)))
                continue
            if found != known:
                result.log.lines[pair] = log_geometry(log, found)
            result.add(found, is_new=found is not known)


class _Task:
    """Verifies one pair; safe to call from several threads."""

    def __init__(
        self,
        *,
        config: VerifyConfig,
        images: ImageSource,
        matches: MatchTable,
        known: Sequence[Mapping[Pair, PairGeometry]],
        writer: MatchWriter,
        written: MatchTable,
    ) -> None:
        self.config = config
        self.matches = matches
        self.known = known
        self.writer = writer
        self.written = written
        self.view = lru_cache(CACHED_IMAGES)(images.view)
        self.read_descriptors: LoadingCache[str, FloatArray] | None = None
        if images.descriptors is not None:
            self.read_descriptors = LoadingCache(
                images.descriptors.read, lambda rows: rows.nbytes, CACHED_BYTES
            )

    def __call__(self, pair: Pair) -> tuple[PairGeometry, PairGeometry | None]:
        """The geometry of a pair, and the known one, which it may be."""
        matches = self.matches.read(*pair)
        if matches is None:
            raise FeatureFormatError(
                f"'{pair[0]}', '{pair[1]}': found no matches of keypoints type "
                f"'{self.matches.keypoints_type}'; run kapture_r2d2_match on this pair"
            )
        view1, view2 = (self.view(name) for name in pair)
        matches.check_counts(pair, (len(view1.keypoints), len(view2.keypoints)))
        inputs = self._digest(view1, view2, matches)
        known = next((log[pair] for log in self.known if pair in log), None)
        if known is not None and known.inputs == inputs and self._is_written(known):
            return known, known
        cameras = view1.camera, view2.camera
        keypoints = view1.keypoints, view2.keypoints
        pose = _cam2_from_cam1(view1, view2)
        geometry = verify_matches(
            cameras, keypoints, colmap_matches(matches), pose, self.config
        )
        every = matches
        if self.read_descriptors is not None and len(geometry.inlier_matches):
            geometry, every = add_guided(
                cameras,
                keypoints,
                (self.read_descriptors(pair[0]), self.read_descriptors(pair[1])),
                matches,
                geometry,
                pose,
                self.config,
            )
        rows = _rows_of(geometry.inlier_matches, every)
        self.writer.write(
            *pair, PairMatches(indices=every.indices[rows], scores=every.scores[rows])
        )
        guided = int((rows >= len(matches)).sum())
        return pair_geometry(pair, inputs, geometry, len(matches), guided), known

    def _digest(self, view1: View, view2: View, matches: PairMatches) -> str:
        digest = hashlib.sha256(f"{view1.digest} {view2.digest}".encode())
        digest.update(repr(tuple(self.config.record().values())).encode())
        digest.update(np.ascontiguousarray(matches.indices).tobytes())
        digest.update(np.ascontiguousarray(matches.scores).tobytes())
        return digest.hexdigest()

    def _is_written(self, known: PairGeometry) -> bool:
        try:
            matches = self.written.read(*known.pair)
        except FeatureFormatError:
            return False
        return matches is not None and len(matches) == known.inliers


def _cam2_from_cam1(view1: View, view2: View) -> pycolmap.Rigid3d | None:
    if view1.cam_from_world is None or view2.cam_from_world is None:
        return None
    return view2.cam_from_world * view1.cam_from_world.inverse()


def _rows_of(inliers: Indices, matches: PairMatches) -> IndexArray:
    """Which of the matches are inliers, in the order of the inliers."""
    rows = {tuple(row): i for i, row in enumerate(matches.indices.tolist())}
    return np.array([rows[tuple(row)] for row in inliers.tolist()], np.int64)
