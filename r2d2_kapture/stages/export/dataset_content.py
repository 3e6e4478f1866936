"""A dataset as COLMAP has it: cameras, rigs, features, matches, poses and points."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.io.colmap.database import keypoints_or_no_rows, write_database
from r2d2_kapture.io.colmap.model import (
    drop_rigs,
    known_pose_model,
    poses_differ,
    read_database,
)
from r2d2_kapture.io.colmap.model_points import add_points, set_keypoints
from r2d2_kapture.io.colmap.verified import VerifiedMatches
from r2d2_kapture.io.kapture.camera_mode import single_camera_hint, with_camera_mode
from r2d2_kapture.io.kapture.feature_provenance import refuse_stale_matches
from r2d2_kapture.io.kapture.gnss import usable_gnss
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.kapture.points3d import (
    OBSERVATIONS_NAME,
    POINTS_NAME,
    read_observations,
    read_points3d,
)
from r2d2_kapture.io.kapture.trajectories import CameraPoses, read_camera_poses
from r2d2_kapture.stages.export.content import FoundModel
from r2d2_kapture.stages.export.formats import Written
from r2d2_kapture.stages.export.source import Source, unusable_images
from r2d2_kapture.types import PairMatches, some_names


@dataclass(frozen=True, kw_only=True)
class DatasetContent:
    """Content of a kapture dataset, see ``Content``.

    Attributes:
        source: of the images.
        matches: of their keypoints; may be empty.
        verified: likewise; None leaves geometries out.
        camera_mode: which images of unknown cameras share one.
    """

    source: Source
    matches: MatchTable
    verified: VerifiedMatches | None
    camera_mode: CameraMode

    @property
    def settings(self) -> dict[str, str]:
        """How cameras are shared."""
        return {"camera_mode": self.camera_mode}

    @property
    def files(self) -> Iterator[Path | str]:
        """Those of matches, geometries and points."""
        yield from self.matches.files(self.matches.pairs)
        if self.verified is not None:
            yield from self.verified.files
            root = self.source.dataset.root
            yield from map(root.joinpath, (POINTS_NAME, OBSERVATIONS_NAME))

    def write_database(self, path: Path) -> Written:
        """See ``Content``."""
        source = self.source
        data = with_camera_mode(source.dataset.data, self.camera_mode)
        refuse_stale_matches(self.matches, source.keypoints, source.names)
        unlike = unusable_images(source)
        geometries = None if self.verified is None else self.verified.read
        pairs = {*self.matches.pairs, *self._verified_pairs()}
        positions, no_positions = usable_gnss(source.dataset)
        summary = write_database(
            path,
            data,
            read_keypoints=keypoints_or_no_rows(source.keypoints, unlike),
            read_matches=self._read_matches,
            read_geometry=geometries,
            pairs=[pair for pair in pairs if unlike.keys().isdisjoint(pair)],
            positions=positions,
            camera_origin=source.cameras.origin,
        )
        return Written(
            failed=tuple(unlike.values()),
            details=dataclasses.asdict(summary),
            warnings=(
                *source.cameras.warnings,
                *single_camera_hint(data, self.camera_mode),
                *no_positions,
            ),
        )

    def model(self, database: Path) -> FoundModel:
        """See ``Content``.

        Raises:
            DatasetError: poses, points or observations are broken.
        """
        dataset = self.source.dataset
        poses = read_camera_poses(dataset)
        if not poses.cam_from_world:
            return None, ("no image has a pose: there is no model of them",)
        model = known_pose_model(read_database(database), poses.cam_from_world)
        warnings = list(_without_pose(poses))
        differing = poses_differ(model, poses.cam_from_world)
        if differing:
            drop_rigs(database)
            model = known_pose_model(read_database(database), poses.cam_from_world)
            warnings.append(
                f"{len(differing)} images have poses that contradict their rigs: "
                f"{some_names(differing)}; the rigs are not exported"
            )
        set_keypoints(model, database)
        if (dataset.root / POINTS_NAME).is_file():
            points, colors = read_points3d(dataset.root)
            keypoints_type = self.source.keypoints.type_name
            seen = read_observations(dataset.root, keypoints_type, len(points))
            unseen = add_points(model, points, colors, seen)
            if unseen:
                warnings.append(
                    f"{unseen} of {len(points)} points are observed by no image with a "
                    "pose; they are not exported"
                )
        return model, tuple(warnings)

    def _verified_pairs(self) -> list[tuple[str, str]]:
        return [] if self.verified is None else self.verified.matches.pairs

    def _read_matches(self, image1: str, image2: str) -> PairMatches | None:
        """The matches of a pair, or else its inliers."""
        found = self.matches.read(image1, image2)
        if found is None and self.verified is not None:
            return self.verified.matches.read(image1, image2)
        return found


def _without_pose(poses: CameraPoses) -> Iterator[str]:
    if poses.without_pose:
        yield (
            f"{len(poses.without_pose)} images have no pose: "
            f"{some_names(poses.without_pose)}; they are not in the model"
        )
