"""The passes over the photographs of a database: references, then the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import kapture_from_colmap, stored_from_turned
from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.colmap.map_dataset import MapKeypoints
from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.io.colmap.stored_database import StoredDatabase
from r2d2_kapture.io.features.reading import patch_sides
from r2d2_kapture.io.kapture.camera_sizes import READERS, CameraImage, dataset_images
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.refinement.registration import MOVED
from r2d2_kapture.stages.background_io import one_core_a_thread, read_ahead
from r2d2_kapture.stages.refine.map_tracks import tracks_of_map
from r2d2_kapture.stages.refine.output import is_written, open_writer, turns_of
from r2d2_kapture.stages.refine.photographs import Photographs, check_header
from r2d2_kapture.stages.refine.results import ImageResult, read_results
from r2d2_kapture.stages.refine.scratch import Found, Scratch
from r2d2_kapture.stages.refine.tracks import Match, Numbering, find_tracks
from r2d2_kapture.types import FloatArray, counted


def refine(
    config: RefineConfig,
    stored: StoredDatabase,
    dataset: Dataset,
    keypoints: MapKeypoints,
    sparse_map: SparseMap | None,
    folder: Path,
    options: RunOptions,
) -> int:
    """Refine the keypoints of a database, unless they are; give the images done."""
    ids = sorted(stored.content.names)
    names = [stored.content.names[image_id] for image_id in ids]
    known = read_results(folder)
    if all(
        name in known
        and is_written(
            folder, name, stored.content.keypoint_counts[image_id], keypoints
        )
        for image_id, name in zip(ids, names)
    ):
        return 0
    images = dataset_images(dataset, names)
    scratch = Scratch(output=folder)
    scratch.begin([images[name].path for name in names])
    numbering = _number(names, keypoints)
    verified = _Verified(
        stored=stored, places={image_id: i for i, image_id in enumerate(ids)}
    )
    unreadable = _check_headers([images[name] for name in names], verified)
    if sparse_map is None:
        readable = dataclasses.replace(verified, left_out=frozenset(unreadable))
        tracks = find_tracks(numbering, readable)
    else:
        tracks = tracks_of_map(numbering, names, sparse_map, unreadable)
    photographs = Photographs(
        config=config,
        images=tuple(images[name] for name in names),
        keypoints=numbering,
        tracks=tracks,
        scratch=scratch,
    )
    with one_core_a_thread():
        unreadable |= _cut(photographs, options)
        done = _register(photographs, unreadable, options)
    _write(photographs, names, keypoints, folder)
    return done


@dataclass(frozen=True, kw_only=True, eq=False)
class _Verified:
    """The verified matches of a database, as often as they are gone through.

    Attributes:
        stored: the database.
        places: of images by id.
        left_out: images whose matches are.
    """

    stored: StoredDatabase
    places: Mapping[int, int]
    left_out: frozenset[int] = frozenset()

    def __iter__(self) -> Iterator[Match]:
        for ids, rows in self.stored.inliers():
            first, second = (self.places[image_id] for image_id in ids)
            if len(rows) and self.left_out.isdisjoint((first, second)):
                yield first, second, rows


def read_xy(keypoints: MapKeypoints, name: str) -> FloatArray:
    """(N, 2) keypoints of an image, from the centre of its first pixel."""
    places = keypoints.read(name)[:, :2].astype(np.float32)
    return kapture_from_colmap(places) if keypoints.origin == "corner" else places


def _number(names: Sequence[str], keypoints: MapKeypoints) -> Numbering:
    """Number the keypoints of images, in their order."""
    turns = turns_of(keypoints.folders)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    xy, sides, uprights = [], [], []
    for name in names:
        xy.append(read_xy(keypoints, name))
        sides.append(patch_sides(keypoints.read(name)))
        turn = turns[name].turn if name in turns else 0
        origin, *axes = stored_from_turned(corners, turn, (1, 1))
        uprights.append((np.array(axes) - origin).T)
    return Numbering(
        starts=np.cumsum([0, *map(len, xy)]),
        xy=np.concatenate(xy),
        sides=np.concatenate(sides),
        uprights=np.array(uprights),
    )


def _check_headers(
    images: Sequence[CameraImage], matches: Iterable[Match]
) -> dict[int, str]:
    """The photographs with verified matches that cannot be read, and why.

    Raises:
        ImageError: all of them.
    """
    matched = sorted({image for *pair, _ in matches for image in pair})
    found = {}
    for image, future in read_ahead(
        matched, lambda i: check_header(images[i]), READERS
    ):
        try:
            future.result()
        except ImageError as error:
            found[image] = str(error)
    if matched and len(found) == len(matched):
        raise ImageError(
            f"none of {counted(len(matched), 'photograph')} can be read; first: "
            f"{found[matched[0]]}"
        )
    return found


def _cut(photographs: Photographs, options: RunOptions) -> dict[int, str]:
    """Cut the patches of references; give the images that cannot be read, and why."""
    scratch = photographs.scratch
    images = [
        image
        for image in range(len(photographs.images))
        if len(photographs.tracks.references_in(photographs.keypoints.of(image)))
    ]
    todo = [image for image in images if not scratch.has_templates(image)]
    unreadable = {}
    bar = Progress(
        "refine, references",
        "photograph",
        len(images),
        done=len(images) - len(todo),
        shown=options.progress,
    )
    cutting = closing(read_ahead(todo, photographs.cut, options.workers))
    with bar, cutting as cut:
        for image, future in cut:
            bar.update()
            try:
                scratch.write_templates(image, future.result())
            except ImageError as error:
                unreadable[image] = str(error)
    return unreadable


def _register(
    photographs: Photographs, unreadable: Mapping[int, str], options: RunOptions
) -> int:
    """Register the keypoints of images; give the number of images done.

    Raises:
        ImageError: a photograph cannot be read, and options.strict.
    """
    scratch = photographs.scratch
    images = range(len(photographs.images))
    todo = [image for image in images if not scratch.has_found(image)]

    def find(image: int) -> Found:
        return photographs.find(image, unreadable)

    bar = Progress(
        "refine",
        "photograph",
        len(images),
        done=len(images) - len(todo),
        shown=options.progress,
    )
    working = closing(read_ahead(todo, find, options.workers))
    with bar, working as registered:
        for image, future in registered:
            bar.update()
            found = future.result()
            if found.failure and options.strict:
                raise ImageError(found.failure)
            scratch.write_found(image, found)
    return len(todo)


def _write(
    photographs: Photographs,
    names: Sequence[str],
    source: MapKeypoints,
    folder: Path,
) -> None:
    """Add up the steps that were found along tracks, and write the keypoints."""
    keypoints, tracks = photographs.keypoints, photographs.tracks
    steps = np.zeros((len(keypoints), 2))
    moved = np.zeros(len(keypoints), np.bool_)
    for image in range(len(names)):
        found = photographs.scratch.read_found(image)
        steps[found.numbers] = found.steps
        moved[found.numbers] = found.outcomes == MOVED
    total = tracks.settle(steps, moved)
    with open_writer(folder, source) as writer:
        for image, name in enumerate(names):
            here = keypoints.of(image)
            found = photographs.scratch.read_found(image)
            asked = len(tracks.observations_in(here))
            tracked = np.count_nonzero(tracks.references[here] >= 0)
            result = ImageResult.of(
                found,
                total[found.numbers],
                asked - len(found.numbers),
                int(tracked) - asked,
            )
            # a first one moves without registration, but not in an unreadable image
            gone = total[here] * (not found.failure)
            writer.write(name, gone, result, found.record)
