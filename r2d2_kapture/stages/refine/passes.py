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
from r2d2_kapture.config.slices import Slice
from r2d2_kapture.config.stores import Store
from r2d2_kapture.coordinates import kapture_from_colmap, stored_from_turned
from r2d2_kapture.errors import DatasetError, ImageError
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
from r2d2_kapture.stages.refine.output import (
    is_written,
    open_refined,
    open_writer,
    turns_of,
)
from r2d2_kapture.stages.refine.photographs import Photographs, check_header
from r2d2_kapture.stages.refine.results import ImageResult, read_results
from r2d2_kapture.stages.refine.scratch import Found, Scratch
from r2d2_kapture.stages.refine.tracks import Match, Numbering, find_tracks
from r2d2_kapture.types import Failure, FloatArray, counted


def refine(
    config: RefineConfig,
    stored: StoredDatabase,
    dataset: Dataset,
    keypoints: MapKeypoints,
    sparse_map: SparseMap | None,
    folder: Path,
    options: RunOptions,
    store: Store = "files",
) -> int:
    """Refine the keypoints of a database, unless they are; give the images done."""
    if is_refined(stored, keypoints, folder):
        return 0
    scratch = Scratch(output=folder)
    work = _prepare(config, stored, dataset, keypoints, sparse_map, scratch)
    done = _register(work, range(len(work.photographs.images)), options)
    _write(work.photographs, image_names(stored), keypoints, folder, store)
    return done


def register_slice(
    config: RefineConfig,
    stored: StoredDatabase,
    dataset: Dataset,
    keypoints: MapKeypoints,
    sparse_map: SparseMap | None,
    scratch: Scratch,
    part: Slice,
    options: RunOptions,
) -> tuple[int, tuple[Failure, ...]]:
    """Register the keypoints of a slice of the images, and leave what was found.

    Tracks, and so what is found, are those of all images.

    Args:
        config, stored, dataset, keypoints, sparse_map, options: as of ``refine``.
        scratch: in the folder of the slice.
        part: of the images in order of ids.

    Returns:
        The number of images done, and those that cannot be read.
    """
    work = _prepare(config, stored, dataset, keypoints, sparse_map, scratch)
    names = image_names(stored)
    images = part.of(range(len(names)))
    done = _register(work, images, options)
    reasons = {names[image]: scratch.read_found(image).failure for image in images}
    failed = [Failure(name=name, reason=why) for name, why in reasons.items() if why]
    return done, tuple(failed)


def image_names(stored: StoredDatabase) -> list[str]:
    """The images of a database, in order of ids."""
    return [name for _, name in sorted(stored.content.names.items())]


def is_refined(stored: StoredDatabase, keypoints: MapKeypoints, folder: Path) -> bool:
    """Whether a folder has the refined keypoints of all images of a database."""
    known = read_results(folder)
    try:
        items = open_refined(folder)
    except DatasetError:  # a killed run leaves an archive that the writer repairs
        return False
    counts = stored.content.keypoint_counts
    return all(
        name in known and is_written(items, name, counts[image_id], keypoints)
        for image_id, name in stored.content.names.items()
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What is to be done in the photographs of a database.

    Attributes:
        photographs: all of them.
        unreadable: positions of those that cannot be read, and why.
    """

    photographs: Photographs
    unreadable: Mapping[int, str]


def _prepare(
    config: RefineConfig,
    stored: StoredDatabase,
    dataset: Dataset,
    keypoints: MapKeypoints,
    sparse_map: SparseMap | None,
    scratch: Scratch,
) -> _Work:
    """Find the tracks of all keypoints."""
    ids = sorted(stored.content.names)
    names = image_names(stored)
    images = dataset_images(dataset, names)
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
    return _Work(
        photographs=Photographs(
            config=config,
            images=tuple(images[name] for name in names),
            keypoints=numbering,
            tracks=tracks,
            scratch=scratch,
        ),
        unreadable=unreadable,
    )


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


def _cut(
    photographs: Photographs, wanted: Sequence[int], options: RunOptions
) -> dict[int, str]:
    """Cut the patches of references in images and of those that images need; give the
    images that cannot be read, and why."""
    scratch = photographs.scratch
    # their own first: those of others may have been cut meanwhile
    images = list(
        dict.fromkeys(
            [
                *filter(photographs.has_references, wanted),
                *sorted({i for image in wanted for i in photographs.needed(image)}),
            ]
        )
    )
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


def _register(work: _Work, images: Sequence[int], options: RunOptions) -> int:
    """Register the keypoints of images; give the number of images done.

    Raises:
        ImageError: a photograph cannot be read, and options.strict.
    """
    with one_core_a_thread():
        photographs = work.photographs
        scratch = photographs.scratch
        todo = [image for image in images if not scratch.has_found(image)]
        unreadable = {**work.unreadable, **_cut(photographs, todo, options)}
        _find(photographs, todo, unreadable, len(images), options)
        return len(todo)


def _find(
    photographs: Photographs,
    todo: Sequence[int],
    unreadable: Mapping[int, str],
    total: int,
    options: RunOptions,
) -> None:
    scratch = photographs.scratch

    def find(image: int) -> Found:
        return photographs.find(image, unreadable)

    bar = Progress(
        "refine",
        "photograph",
        total,
        done=total - len(todo),
        shown=options.progress,
        also=options.on_progress,
    )
    working = closing(read_ahead(todo, find, options.workers))
    with bar, working as registered:
        for image, future in registered:
            bar.update()
            found = future.result()
            if found.failure and options.strict:
                raise ImageError(found.failure)
            scratch.write_found(image, found)


def _write(
    photographs: Photographs,
    names: Sequence[str],
    source: MapKeypoints,
    folder: Path,
    store: Store,
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
    with open_writer(folder, source, store) as writer:
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
