"""Writes features, matches and geometries of a folder's images to a COLMAP database."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import camera_sensors
from r2d2_kapture.io.colmap.check import check_database, copy_database, database_sha256
from r2d2_kapture.io.colmap.database import building, colmap_keypoints, colmap_matches
from r2d2_kapture.io.colmap.follow import follow_cameras
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.pose_priors import read_pose_priors, write_pose_priors
from r2d2_kapture.io.colmap.state import DatabaseState
from r2d2_kapture.io.colmap.update import (
    add_images,
    cameras_by_image,
    images_with_features,
    remove_features,
    replace_pair,
)
from r2d2_kapture.io.kapture.camera_sizes import CameraImage, size_difference
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.gnss import Position, usable_gnss
from r2d2_kapture.io.kapture.match_store import MatchTable
from r2d2_kapture.io.kapture.pairs import sorted_pairs
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.stages.verify import (
    DescriptorSource,
    ImageSource,
    Pair,
    VerifiedPairs,
    verified_manifest,
    verify_pairs,
)
from r2d2_kapture.types import FloatArray, some_names

FEATURES = Contents(what="features and matches", files=(), flag="--database")


@dataclass(frozen=True, kw_only=True)
class DatabaseUpdate:
    """Adds to a database, or creates one.

    Attributes:
        database: the file.
        dataset: kapture dataset of the images, made of a folder.
        state_path: file that records what an earlier run wrote.
        force: replace third-party features, and write current data.
        unreadable: names of images that could not be read this time.
    """

    database: Path
    dataset: Path
    state_path: Path
    force: bool
    unreadable: frozenset[str] = frozenset()

    @property
    def state(self) -> DatabaseState:
        """The record of what an earlier run wrote."""
        return DatabaseState(path=self.state_path, database=self.database)

    def check(self, keypoints: FeatureTable | None) -> tuple[str, ...]:
        """Before any work, refuse a database that could not be updated later.

        Args:
            keypoints: extracted by an earlier run.

        Returns:
            Warnings on what will be added to the database, and on images that only the
            database or only the folder has.

        Raises:
            DatasetError: it is not a COLMAP 4 database, is in use, or has other images.
            OutputError: it holds third-party features of our images, without ``force``.
        """
        if not self.database.exists():
            return ()
        warnings = check_database(self.database, to_replace=True)
        dataset = open_dataset(self.dataset)
        with tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as folder:
            copy = Path(folder) / "database.db"
            copy_database(self.database, copy)
            with quiet_pycolmap(), closing(pycolmap.Database.open(str(copy))) as opened:
                self._check_sizes(opened, dataset)
                others = images_with_features(opened, _ours(dataset, keypoints))
                stored = {image.name for image in opened.read_all_images()}
        if others and not self.force and not self.state.is_ours():
            found = (
                f"third-party features for {len(others)} of these images, such as "
                f"'{others[0]}'"
            )
            raise FEATURES.refusal(self.database, found)
        return (*warnings, *_on_one_side(self.database, stored, dataset))

    @property
    def sha256(self) -> str:
        """Of the database as it is; empty if there is none."""
        return database_sha256(self.database) if self.database.is_file() else ""

    def verify(
        self,
        config: VerifyConfig,
        *,
        keypoints: FeatureTable,
        descriptors: DescriptorSource | None,
        matches: MatchTable,
        pairs: Sequence[Pair],
        output: Path,
        options: RunOptions,
    ) -> VerifiedPairs:
        """Verify pairs with the database's cameras.

        Args:
            config: how to verify.
            keypoints: of the images.
            descriptors: of these, for guided matching.
            matches: of the pairs.
            pairs: names of images that have keypoints.
            output: folder of the verified matches.
            options: how to run.

        Raises:
            DatasetError, OutputError: see ``verify_pairs``.
        """
        dataset = open_dataset(self.dataset)
        images = ImageSource(
            cameras=self._cameras(dataset),
            read_keypoints=keypoints.read,
            descriptors=descriptors,
        )
        matched = frozenset(matches.pairs)
        names = sorted(set(dataset.image_names) & set(keypoints.image_names))
        return verify_pairs(
            config,
            images=images,
            matches=matches,
            pairs=[pair for pair in sorted_pairs(pairs, names) if pair in matched],
            output=output,
            manifest=verified_manifest(matches.keypoints_type, config.record()),
            options=options,
        )

    def write(
        self,
        keypoints: FeatureTable,
        matches: MatchTable,
        verified: VerifiedPairs,
        checked: str,
    ) -> tuple[str, ...]:
        """Write keypoints, matches and geometries, unless they are there.

        Args:
            keypoints: of the images.
            matches: of the pairs.
            verified: their geometries.
            checked: SHA-256 of the database as it was at ``check``, which is done again
                if it has changed since.

        Returns:
            Warnings on positions of images.

        Raises:
            DatasetError, OutputError: as ``check``, or it cannot be written.
        """
        dataset = open_dataset(self.dataset)
        images = ImageSource(
            cameras=self._cameras(dataset), read_keypoints=keypoints.read
        )
        names = sorted(set(dataset.image_names) & set(keypoints.image_names))
        keypoints_of = {name: images.view(name).keypoints for name in names}
        positions, no_positions = usable_gnss(dataset)
        inputs = _digest(images, names, verified, positions)
        if self.force or not self.state.is_current(inputs):
            if self.sha256 != checked:
                self.check(keypoints)
            self._write(dataset, keypoints_of, matches, verified, positions, inputs)
        return no_positions

    def _cameras(self, dataset: Dataset) -> dict[str, pycolmap.Camera]:
        """The camera that each image has or will get."""
        with tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as folder:
            copy = Path(folder) / "database.db"
            self._copy(dataset, copy)
            with quiet_pycolmap(), closing(pycolmap.Database.open(str(copy))) as opened:
                return cameras_by_image(opened, add_images(opened, dataset.data))

    def _copy(self, dataset: Dataset, copy: Path) -> None:
        """Copy the database if there is one; our cameras follow the size of their
        images."""
        if not self.database.exists():
            return
        copy_database(self.database, copy)
        with quiet_pycolmap():
            with closing(pycolmap.Database.open(str(copy))) as opened:
                resized = _of_other_size(opened, dataset)
            follow_cameras(copy, dataset.data, self._followers(resized))

    def _followers(self, resized: Collection[str]) -> frozenset[str]:
        """Images whose cameras we may change.

        Third-party or edited cameras are kept; with force, those written by an older
        version count as ours.

        Args:
            resized: images whose files have another size than their cameras.
        """
        ours = self.state.added
        if self.state.is_ours():
            return ours | frozenset(resized if self.force else ())
        return ours & frozenset(resized if self.force else ())

    def _check_sizes(self, database: pycolmap.Database, dataset: Dataset) -> None:
        """Refuse images whose third-party camera has another size."""
        resized = _of_other_size(database, dataset)
        for name in sorted(resized.keys() - self._followers(resized)):
            raise DatasetError(
                f"{self.database}: image '{shown(name)}': {resized[name]}"
            )

    def _write(
        self,
        dataset: Dataset,
        keypoints: Mapping[str, FloatArray],
        matches: MatchTable,
        verified: VerifiedPairs,
        positions: Mapping[str, Position],
        inputs: str,
    ) -> None:
        added: set[str] = set()
        with building(
            self.database, lambda complete: self.state.expect(complete, inputs, added)
        ) as local:
            self._copy(dataset, local)
            with closing(pycolmap.Database.open(str(local))) as opened:
                there = {image.name for image in opened.read_all_images()}
                ids = add_images(opened, dataset.data)
                added |= ids.keys() - there
                others = images_with_features(opened, keypoints)
                # images that have become unreadable, in the dataset or left out of it
                gone = (ids.keys() | self.unreadable) - keypoints.keys()
                others += self.state.added & gone
                stored = {i.name: i.image_id for i in opened.read_all_images()}
            remove_features(local, (stored[n] for n in others if n in stored))
            with closing(pycolmap.Database.open(str(local))) as opened:
                for name, xy in keypoints.items():
                    if not opened.exists_keypoints(ids[name]):
                        opened.write_keypoints(ids[name], xy)
                    elif opened.num_keypoints_for_image(ids[name]) != len(xy):
                        opened.update_keypoints(ids[name], xy)
                ours = self.state.added | added
                theirs = read_pose_priors(opened).keys() - ours
                write_pose_priors(
                    opened, {n: p for n, p in positions.items() if n not in theirs}
                )
                for first, second in verified.pairs:
                    found = matches.read(first, second)
                    if found is not None:
                        replace_pair(
                            opened,
                            (ids[first], ids[second]),
                            colmap_matches(found),
                            verified.geometry(first, second),
                        )


def _on_one_side(
    database: Path, stored: Collection[str], dataset: Dataset
) -> Iterator[str]:
    """The warnings on images that only a database or only the folder has."""
    ours = set(dataset.image_names)
    theirs = sorted(set(stored) - ours)
    if theirs:
        yield (
            f"{len(theirs)} of {len(stored)} images of {database} are not in the "
            f"folder: {some_names(map(shown, theirs))}; they are left unchanged (names "
            "are relative to the folder of images)"
        )
    new = sorted(ours - set(stored))
    if new and stored:
        yield (
            f"{len(new)} of {len(ours)} images of the folder were not in {database}: "
            f"{some_names(map(shown, new))}; they are added with new cameras"
        )


def _ours(
    dataset: Dataset, keypoints: FeatureTable | None
) -> dict[str, FloatArray | None]:
    """Our keypoints of each image as a database holds them, or None."""
    return {
        name: (
            None
            if keypoints is None or name not in keypoints
            else colmap_keypoints(name, keypoints.read(name))
        )
        for name in dataset.image_names
    }


def _of_other_size(database: pycolmap.Database, dataset: Dataset) -> dict[str, str]:
    """Images whose file and camera in a database differ in size, with the reason."""
    sensors = camera_sensors(dataset.data)
    cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
    stored = {image.name: image for image in database.read_all_images()}
    found = {}
    for record in image_records(dataset.data).values():
        if record.name in stored:
            width, height = map(int, sensors[record.sensor_id].camera_params[:2])
            camera = cameras[stored[record.name].camera_id]
            image = CameraImage(
                path=dataset.image_path(record.name),
                size=(camera.width, camera.height),
                camera="its camera in the database",
            )
            difference = size_difference(image, (width, height))
            if difference is not None:
                found[record.name] = difference
    return found


def _digest(
    images: ImageSource,
    names: list[str],
    verified: VerifiedPairs,
    positions: Mapping[str, Position],
) -> str:
    """Digest of all inputs of what is written."""
    digest = hashlib.sha256(verified.digest().encode())
    for name in names:
        digest.update(f"{name} {images.digest(name)}\n".encode())
    for name, position in sorted(positions.items()):
        digest.update(f"{name} {position}\n".encode())
    return digest.hexdigest()
