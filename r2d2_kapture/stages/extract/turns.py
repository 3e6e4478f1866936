"""The quarter turns of images to be extracted, found once and recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.rotations import OFF, Rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.orientation import Orientation, exif_orientation
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.image_records import read_records, sha256_of
from r2d2_kapture.io.outputs.orientations import (
    RecordedTurn,
    read_turns,
    write_turns,
)
from r2d2_kapture.stages.extract.orientation import FixedImage, find_turns
from r2d2_kapture.types import some_names

UPRIGHT = Orientation(turn=0, mirrored=False)


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Turns of images, by name; others stay as stored.

    Attributes:
        of: degrees clockwise, by name of the image.
        warnings: on what may be turned wrongly.
        details: how many were turned, for the report.
    """

    of: Mapping[str, Turn] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Turning:
    """How the images of an extraction are turned.

    Raises:
        ConfigError: features to match, but nothing that matches decide.

    Attributes:
        rotations: that are asked for.
        folder: of the features, where turns are recorded; None for nowhere.
        like: folder of other features that images are turned to match.
    """

    rotations: Rotations = OFF
    folder: Path | None = None
    like: Path | None = None

    def __post_init__(self) -> None:
        require(
            self.like is None or self.rotations.by_matching,
            f"--rotations-like: found --rotations {self.rotations.text}, expected auto "
            "or two turns to choose from (0,180 or 90,270)",
        )

    def turns(
        self,
        extractor: Extractor,
        paths: Mapping[str, Path],
        todo: Mapping[str, Path],
        options: RunOptions,
    ) -> Turns:
        """The turns of images to extract, the recorded ones first.

        Args:
            extractor: of the features.
            paths: files of all images by name; turns of the extracted ones stay.
            todo: those that are to be extracted.
            options: how to run.

        Raises:
            FeatureFormatError: the record is none.
            OutputError: the turns cannot be recorded.
        """
        if self.rotations.is_off:
            return Turns()
        recorded = {} if self.folder is None else read_turns(self.folder)
        kept = {} if options.force else _of_these_files(recorded, todo)
        asked = {name: path for name, path in todo.items() if name not in kept}
        tags = {name: _orientation(path) for name, path in asked.items()}
        found = {name: self.guess(tags[name]) for name in asked}
        apart: tuple[str, ...] = ()
        if self.rotations.by_matching and asked:
            there = {n: p for n, p in paths.items() if n not in asked}
            known = self._like() | self._earlier(there, recorded)
            searched = find_turns(
                extractor,
                asked,
                found,
                self.rotations,
                fixed={n: item for n, item in known.items() if n not in asked},
                options=options,
            )
            found |= searched.turns
            apart = searched.apart
        turns = {**kept, **found}
        if self.folder is not None and asked:
            new = {
                name: RecordedTurn(turn=turn, sha256=_digest(asked[name]))
                for name, turn in found.items()
            }
            write_turns(self.folder, {**recorded, **new})
        return Turns(
            of=turns,
            warnings=_warnings(apart, tags),
            details={"turned": _counts(turns)},
        )

    def guess(self, tag: Orientation) -> Turn:
        """The turn of an image before any matching."""
        allowed = self.rotations.turns
        return tag.turn if self.rotations.exif and tag.turn in allowed else allowed[0]

    def _earlier(
        self, paths: Mapping[str, Path], recorded: Mapping[str, RecordedTurn]
    ) -> dict[str, FixedImage]:
        """The images of the same folder of features, of any dataset."""
        return {} if self.folder is None else _fixed(self.folder, paths, recorded)

    def _like(self) -> dict[str, FixedImage]:
        """The images of the other features.

        Raises:
            DatasetError: none of them is there.
        """
        if self.like is None:
            return {}
        images = _fixed(self.like, {}, read_turns(self.like))
        if not images:
            raise DatasetError(
                f"{self.like}: found no images.jsonl with images that are still there, "
                "expected the folder of features that kapture_r2d2_extract wrote"
            )
        return images


def turns_like_the_first(
    extractor: Extractor,
    rotations: Rotations,
    images: Sequence[Path],
    options: RunOptions = RunOptions(progress=False),
) -> list[Turn]:
    """Turns in which images match the first one, which is seen as EXIF has it.

    Args:
        extractor: of the features.
        rotations: that are asked for.
        images: files, at least one.
        options: how to run.
    """
    turning = Turning(rotations=rotations)
    paths = {str(number): path for number, path in enumerate(images)}
    turns = {name: turning.guess(_orientation(path)) for name, path in paths.items()}
    if rotations.by_matching:
        first = FixedImage(path=images[0], turn=turns["0"])
        others = {name: path for name, path in paths.items() if name != "0"}
        guesses = {name: turns[name] for name in others}
        turns |= find_turns(
            extractor,
            others,
            guesses,
            rotations,
            fixed={"0": first},
            options=options,
        ).turns
    return [turns[name] for name in paths]


def _fixed(
    folder: Path, paths: Mapping[str, Path], recorded: Mapping[str, RecordedTurn]
) -> dict[str, FixedImage]:
    """Images with features in a folder, by name, whose files are there."""
    files = {
        name: Path(record.path)
        for name, record in read_records(folder).items()
        if record is not None
    }
    return {
        name: FixedImage(path=path, turn=_turn(recorded, name))
        for name, path in {**files, **paths}.items()
        if path.is_file()
    }


def _turn(recorded: Mapping[str, RecordedTurn], name: str) -> Turn:
    return recorded[name].turn if name in recorded else 0


def _of_these_files(
    recorded: Mapping[str, RecordedTurn], images: Mapping[str, Path]
) -> dict[str, Turn]:
    """The recorded turns of images whose files are those that they were found for."""
    return {
        name: recorded[name].turn
        for name, path in images.items()
        if name in recorded and _digest(path) == recorded[name].sha256
    }


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty where it cannot be read, which extraction reports."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _orientation(path: Path) -> Orientation:
    try:
        return exif_orientation(path)
    except ImageError:  # extraction reports it
        return UPRIGHT


def _counts(turns: Mapping[str, Turn]) -> dict[str, int]:
    """How many images were turned, by degrees."""
    counts = Counter(turn for turn in turns.values() if turn)
    return {f"{turn} degrees": counts[turn] for turn in sorted(counts)}


def _warnings(apart: Sequence[str], tags: Mapping[str, Orientation]) -> tuple[str, ...]:
    mirrored = sorted(name for name, tag in tags.items() if tag.mirrored)
    found = (
        (
            "photographs without a match in the largest group, in any rotation",
            "they are turned as EXIF has it, or as most of those that they match",
            apart,
        ),
        (
            "photographs are stored mirrored (EXIF orientation 2, 4, 5 or 7)",
            "they are turned, never mirrored, and no camera fits them; store them "
            "upright first (mogrify -auto-orient)",
            mirrored,
        ),
    )
    return tuple(
        f"{what}: {len(names)} ({some_names(map(shown, names))}); {result}"
        for what, result, names in found
        if names
    )
