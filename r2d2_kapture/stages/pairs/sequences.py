"""Sequential pairs: neighbours in time, images of a rig together, and closed loops."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pairs import PairList
from r2d2_kapture.io.kapture.rigs import rigs_above
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.matching.pair_selection import (
    Selection,
    concatenate,
    every_with_every,
    sequential,
)
from r2d2_kapture.stages.pairs.inputs import PairInputs, Selected, named
from r2d2_kapture.stages.pairs.similarity import image_rows, most_similar_images
from r2d2_kapture.types import IndexArray


class Frame(NamedTuple):
    """What the cameras of a rig take at one time, or an image of a camera in no rig.

    Attributes:
        timestamp: of the dataset.
        owner: the outermost rig, or the camera.
        images: their indices.
    """

    timestamp: int
    owner: str
    images: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where each image stands in time.

    Attributes:
        sequence: (N,) number of its sequence.
        step: (N,) number of its frame in the sequence.
        length: (N,) frames of the sequence.
    """

    sequence: IndexArray
    step: IndexArray
    length: IndexArray

    @staticmethod
    def of(sequences: Iterable[Sequence[Frame]], count: int) -> Places:
        """Those of the images of sequences."""
        places = np.zeros((3, count), np.int64)
        for number, frames in enumerate(sequences):
            for step, frame in enumerate(frames):
                places[:, frame.images] = [[number], [step], [len(frames)]]
        return Places(sequence=places[0], step=places[1], length=places[2])

    def near(
        self, images: IndexArray, others: IndexArray, gap: int, *, loop: bool
    ) -> npt.NDArray[np.bool_]:
        """(B, M) which images are at most some steps in time from which others.

        Args:
            images, others: (B,) and (M,) indices.
            gap: steps.
            loop: the last frame of a sequence precedes its first.
        """
        steps = abs(self.step[images, None] - self.step[others])
        if loop:
            steps = np.minimum(steps, self.length[others] - steps)
        same = self.sequence[images, None] == self.sequence[others]
        return np.asarray(same & (steps <= gap))


def select_sequential(config: PairsConfig, inputs: PairInputs) -> Selected:
    """Neighbours in time of each camera, images of a rig at one time, and loops.

    If every image has its own camera, all images form one sequence.
    """
    names = inputs.mapping_names
    images, frames = taken(inputs.mapping)
    cameras, rigs = (sequences(config, found) for found in (images, frames))
    parts = [
        neighbours(config, np.array([index for image in run for index in image.images]))
        for run in cameras
    ]
    parts += [
        sequential(np.array(frame.images), overlap=len(frame.images))
        for frame in frames
        if len(frame.images) > 1
    ]
    if config.expand_rig_images:
        parts += [part for run in rigs for part in neighbouring_frames(config, run)]
    selected = Selected(
        pairs=named(concatenate(parts), names, names),
        details={"sequences": len(cameras)},
        warnings=interval_warning(config, images, cameras),
    )
    if not config.loop_top_k:
        return selected
    loops = loop_closures(config, inputs, rigs)
    return Selected(
        pairs=PairList.joined([selected.pairs, loops.pairs]),
        failed=loops.failed,
        details=selected.details | loops.details,
        warnings=selected.warnings + loops.warnings,
    )


def taken(dataset: Dataset) -> tuple[list[Frame], list[Frame]]:
    """Each image of a dataset, owned by its camera; the frames, owned by rigs."""
    above = rigs_above(dataset.data)
    images, frames = [], defaultdict(list)
    for i, (timestamp, camera, _) in enumerate(image_records(dataset.data).values()):
        images.append(Frame(timestamp, camera, (i,)))
        outermost = list(above[camera])[-1] if camera in above else camera
        frames[timestamp, outermost].append(i)
    return images, [Frame(*key, tuple(found)) for key, found in frames.items()]


def sequences(config: PairsConfig, frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one owner in order of time, cut at gaps longer than the interval.

    If each owner has one frame, all frames are of one sequence.
    """
    owners = {frame.owner for frame in frames}
    owned: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        owned[frame.owner if len(owners) < len(frames) else ""].append(frame)
    longest = np.inf if config.max_interval is None else config.max_interval
    parts = []
    for found in owned.values():
        found.sort(key=lambda frame: (frame.timestamp, frame.images))
        gaps = np.diff([frame.timestamp for frame in found]) > longest
        bounds = [0, *(np.flatnonzero(gaps) + 1).tolist(), len(found)]
        parts += [found[start:end] for start, end in itertools.pairwise(bounds)]
    return parts


def interval_warning(
    config: PairsConfig, images: Sequence[Frame], cut: Sequence[Sequence[Frame]]
) -> tuple[str, ...]:
    """The warning on an interval shorter than all there are, as in another unit.

    Args:
        config: the interval.
        images: of all cameras.
        cut: their sequences.
    """
    whole = sequences(dataclasses.replace(config, max_interval=None), images)
    if len(cut) < len(images) or len(whole) == len(images):
        return ()
    gaps = [np.diff([frame.timestamp for frame in run]) for run in whole]
    shortest = np.concatenate(gaps).min()
    return (
        f"--max-interval {config.max_interval:g}: no image has a neighbour in time, "
        f"the shortest interval is {shortest}; it is in units of the dataset's "
        "timestamps",
    )


def neighbours(config: PairsConfig, sequence: IndexArray) -> Selection:
    """Pairs of a sequence that are few steps apart."""
    return sequential(
        sequence,
        overlap=config.overlap,
        quadratic=config.quadratic_overlap,
        loop=config.loop,
    )


def neighbouring_frames(
    config: PairsConfig, frames: Sequence[Frame]
) -> Iterator[Selection]:
    """Pairs of each image of a frame with each of another few steps apart."""
    steps = neighbours(config, np.arange(len(frames)))
    for i, j, score in zip(steps.first, steps.second, steps.scores):
        first, second = np.array(frames[i].images), np.array(frames[j].images)
        pairs = every_with_every(len(first), len(second))
        yield Selection(
            first=first[pairs.first],
            second=second[pairs.second],
            scores=np.full(len(pairs), score),
        )


def loop_closures(
    config: PairsConfig, inputs: PairInputs, frames: Sequence[Sequence[Frame]]
) -> Selected:
    """Images similar to every n-th frame that are not near it in time.

    Args:
        config: of loops.
        inputs: the images.
        frames: of each sequence.
    """
    names = inputs.mapping_names
    described = image_rows(config.loop_by, config, inputs)
    known = np.array([name in described.places for name in names])
    every = [frame for run in frames for frame in run[:: config.loop_every]]
    first = np.array(sorted(i for f in every for i in f.images if known[i]), np.int64)
    second = np.flatnonzero(known)
    places = Places.of(frames, len(names))
    gap = config.overlap if config.loop_gap is None else config.loop_gap
    pairs = most_similar_images(
        dataclasses.replace(config, top_k=config.loop_top_k, min_score=None),
        described,
        [names[i] for i in first],
        [names[i] for i in second],
        lambda rows, others: places.near(
            first[rows], second[others], gap, loop=config.loop
        ),
    )
    return Selected(
        pairs=pairs,
        failed=described.failed,
        details={"loop_pairs": len(pairs.unique())} | dict(described.details),
        warnings=(*described.warnings, *gap_warning(config, frames)),
    )


def gap_warning(
    config: PairsConfig, frames: Sequence[Sequence[Frame]]
) -> Iterator[str]:
    """The warning on a gap that leaves no loops: no frames are so far apart.

    Args:
        config: of loops.
        frames: of each sequence; those of another one are always far.
    """
    if config.loop_gap is None or len(frames) != 1:
        return
    count = len(frames[0])
    farthest = count // 2 if config.loop else count - 1
    if config.loop_gap >= farthest:
        yield (
            f"--loop-gap {config.loop_gap}: no loops are possible, the {count} frames "
            f"of the sequence are at most {farthest} steps apart; choose a smaller one"
        )
