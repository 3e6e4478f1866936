"""Opens sources of pairs: photographs, and the named sources of the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import image_size, read_rgb
from r2d2_kapture.io.images.search import FoundImages, find_images
from r2d2_kapture.io.lists import read_list_lines
from r2d2_kapture.io.names import shown
from r2d2_kapture.training.data import WeightedSource
from r2d2_kapture.training.loading import MemoryCache, PictureLoader
from r2d2_kapture.training.sources import (
    FLOW_LIST,
    SOURCE_FOLDERS,
    PhotographSource,
    PicturePairSource,
    flow_pairs,
    style_pairs,
)
from r2d2_kapture.types import Failure, some_names


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedSources:
    """Sources of pairs, items left out with reasons, and notes."""

    sources: tuple[WeightedSource, ...]
    skipped: tuple[Failure, ...]
    warnings: tuple[str, ...] = ()

    def report_warnings(self, purpose: str = "") -> tuple[str, ...]:
        """The warnings of the report.

        Args:
            purpose: of the sources, appended to "left out".
        """
        if not self.skipped:
            return self.warnings
        names = some_names(shown(failure.name) for failure in self.skipped)
        return (
            *self.warnings,
            f"{len(self.skipped)} pictures, pairs or scenes are left out{purpose}: "
            f"{names}; see the JSON report for reasons",
        )

    def joined(self, other: OpenedSources) -> OpenedSources:
        """Combine both."""
        return OpenedSources(
            sources=self.sources + other.sources,
            skipped=self.skipped + other.skipped,
            warnings=self.warnings + other.warnings,
        )


def picture_loader(config: PairConfig) -> PictureLoader:
    """The image decoder of a run, shared by its sources."""
    return PictureLoader(read_rgb, config.max_side, MemoryCache(config.cache_gib))


def find_photographs(
    folder: Path, config: PairConfig, exclude: Sequence[str] = ()
) -> tuple[tuple[Path, ...], tuple[Failure, ...]]:
    """Find the photographs below a folder.

    Returns:
        Usable photographs, sorted; failures of those that are unreadable or smaller
        than a crop; and notes of find_images.

    Raises:
        DatasetError: there is no folder, or no usable photograph in it.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: found no such folder, expected one of " "photographs"
        )
    found = find_images([str(folder)], exclude)
    paths, skipped = usable_photographs(found.paths, config.crop_size)
    if not paths:
        raise DatasetError(
            f"{folder}: all {len(skipped)} photographs are unreadable or smaller than "
            f"{config.crop_size} pixels; the first: {skipped[0].to_text()}"
        )
    return tuple(paths), (*_notes(folder, found), *skipped)


def usable_photographs(
    paths: Sequence[Path], min_side: int
) -> tuple[list[Path], tuple[Failure, ...]]:
    """Separate the photographs to train on from those that are unreadable or tiny.

    Args:
        paths: of image files.
        min_side: least shorter side in pixels.

    Returns:
        The usable ones in order, and the others with the reason of each.
    """
    usable: list[Path] = []
    skipped: list[Failure] = []
    for path in paths:
        try:
            width, height = image_size(path)
        except ImageError as error:
            skipped.append(Failure(name=str(path), reason=str(error)))
            continue
        if min(width, height) < min_side:
            reason = f"found {width} x {height} pixels, expected at least {min_side}"
            skipped.append(Failure(name=str(path), reason=reason))
        else:
            usable.append(path)
    return usable, tuple(skipped)


def _notes(folder: Path, found: FoundImages) -> tuple[Failure, ...]:
    return tuple(Failure(name=str(folder), reason=text) for text in found.warnings)


def photograph_sources(
    folder: Path,
    paths: Sequence[Path],
    config: PairConfig,
    load: PictureLoader | None = None,
) -> tuple[WeightedSource, ...]:
    """Synthetic pairs of the photographs of a folder.

    Every photograph is drawn equally often, except for sub-folders in
    ``folder_weights`` of the settings. The weights of all sources together are 1.

    Args:
        folder: parent of the sub-folders.
        paths: of the photographs.
        config: of the pairs.
        load: decodes photographs; None creates a decoder.

    Raises:
        ConfigError: a weight names a sub-folder without photographs, or all are 0.
    """
    load = load or picture_loader(config)
    groups = [
        (name, group, weight * len(group))
        for name, group, weight in _groups(folder, paths, config.weight_of_folder())
        if weight > 0
    ]
    require(bool(groups), "--folder-weights: all photographs have a weight of 0")
    total = sum(weight for _, _, weight in groups)
    return tuple(
        WeightedSource(
            source=PhotographSource(name, group, config, load), weight=weight / total
        )
        for name, group, weight in groups
    )


def open_named_sources(
    root: Path, letters: str, config: PairConfig, load: PictureLoader
) -> OpenedSources:
    """Open sources of the published recipe, which are drawn equally often.

    Args:
        root: the data root, see training/sources.py.
        letters: of W, A, S and F, each at most once.
        config: of the pairs.
        load: decodes images.

    Raises:
        ConfigError: another letter, or one twice.
        DatasetError: a source has nothing to train on.
    """
    known = "".join(SOURCE_FOLDERS)
    require(
        0 < len(letters) == len(set(letters)) and set(letters) <= set(known),
        f"--sources: found {letters!r}, expected letters of {known}, each once",
    )
    opened = OpenedSources(sources=(), skipped=())
    for letter in letters:
        opened = opened.joined(_open_named(root, letter, config, load))
    return opened


def _open_named(
    root: Path, letter: str, config: PairConfig, load: PictureLoader
) -> OpenedSources:
    folder = root / SOURCE_FOLDERS[letter]
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: not found, expected the data of source {letter}; "
            "see kapture_r2d2_fetch"
        )
    if letter in "WA":
        # the weights apply to sub-folders of the user
        evenly = dataclasses.replace(config, folder_weights="")
        paths, skipped = find_photographs(folder, evenly)
        whole = photograph_sources(folder, paths, evenly, load)
        return OpenedSources(sources=whole, skipped=skipped)
    if letter == "S":
        found = find_images([str(folder)])
        pairs, skipped = style_pairs(root, found.paths)
        skipped = (*_notes(folder, found), *skipped)
    else:
        lines = read_list_lines(folder / FLOW_LIST, "a list of pairs and flow files")
        pairs, skipped = flow_pairs(root, lines)
    if not pairs and skipped:
        raise DatasetError(
            f"{folder}: none of {len(skipped)} pairs is usable; the first: "
            f"{skipped[0].to_text()}"
        )
    source = PicturePairSource(str(folder), pairs, config, load)
    return OpenedSources(
        sources=(WeightedSource(source=source, weight=1.0),), skipped=skipped
    )


def _groups(
    folder: Path, paths: Sequence[Path], weights: Mapping[str, float]
) -> list[tuple[str, list[Path], float]]:
    """Name, photographs and weight of each group; the remaining photographs first."""
    groups: dict[str, list[Path]] = {"": [], **{name: [] for name in weights}}
    for path in paths:
        inside = path.relative_to(folder)
        # the deepest named sub-folder
        parents = [parent.as_posix() for parent in inside.parents]
        groups[next((name for name in parents if name in weights), "")].append(path)
    for name, group in groups.items():
        require(
            bool(group) or name == "",
            f"--folder-weights: found no usable photograph in {folder / name}",
        )
    return [
        (str(folder / name), group, weights.get(name, 1.0))
        for name, group in groups.items()
        if group
    ]
