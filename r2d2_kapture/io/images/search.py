"""Image files that the arguments of a command line name, and what is left out."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.images.formats import SUFFIXES, kind_of_unread
from r2d2_kapture.io.images.path_patterns import ANY_DEPTH, is_excluded, path_matches
from r2d2_kapture.io.lists import names_in, read_list_lines
from r2d2_kapture.io.names import shown
from r2d2_kapture.types import some_names

PICTURE_SUFFIXES = (
    ".keypoints.png",
    ".maps.png",
    ".matches.png",
    ".overlay.png",
    ".map.png",
)
"""Endings of what kapture_r2d2_view draws; folders and patterns leave them out."""

MASK_SUFFIX = ".png"
"""After the whole name of an image, as in ``a.jpg.png``: COLMAP's convention."""

AUXILIARY = frozenset(
    "mask masks depth depths depthmap depthmaps depth_maps label labels segmentation "
    "segmentations semantic semantics".split()
)
"""Names of folders, in lower case, whose images are seldom photographs."""


@dataclass(frozen=True, kw_only=True)
class FoundImages:
    """Image files, and sentences on what was left out or may be none.

    Attributes:
        paths: in the order of the arguments, sorted within each, each once.
        warnings: for a report.
    """

    paths: tuple[Path, ...]
    warnings: tuple[str, ...]


def find_images(
    patterns: Sequence[str], exclude: Sequence[str] = (), masks: Path | None = None
) -> FoundImages:
    """Find the images that the arguments of a command line name.

    Of a folder or a glob pattern every name is an image, links too. What plainly is a
    picture and cannot be read is left out with a warning, as are pictures that
    kapture_r2d2_view drew, links to no file or to a folder that is searched anyway,
    and masks: ``a.jpg.png`` where there is an ``a.jpg``, and all below ``masks``.

    Args:
        patterns: each one an image; a folder, searched recursively; a glob pattern,
            where ``**`` is recursive; or a ``.txt`` file of one path per line,
            relative to the current folder or else to its own, with blank lines and
            lines starting with ``#`` skipped. A name that exists is no glob pattern.
        exclude: patterns of what to leave out, see is_excluded, relative to the folder
            or to what precedes the first wildcard.
        masks: folder of masks.

    Returns:
        The images; a path named twice counts once. A plain path is kept even if it
        does not exist, so that it is reported as a failed image and the others go on.

    Raises:
        DatasetError: a folder, glob pattern or list gives no image, a list cannot be
            read, or there is nothing of a name that is not that of an image.
    """
    search = _Search(exclude, masks)
    paths = [path for pattern in patterns for path in search.paths_of(pattern)]
    first_of = {os.path.abspath(path): path for path in reversed(paths)}
    unique = [path for path in paths if first_of.pop(os.path.abspath(path), None)]
    return FoundImages(paths=tuple(unique), warnings=tuple(search.warnings()))


def leave_out_names(
    names: Sequence[str], exclude: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Leave out of a dataset's images those that fit patterns, see is_excluded.

    Returns:
        The names that stay, and sentences for a report.
    """
    search = _Search(exclude, None)
    kept = search.kept([Path(name) for name in names])
    return [path.as_posix() for path in kept], tuple(search.warnings())


class _Search:
    """One search: what it leaves out, by the reason."""

    def __init__(self, exclude: Sequence[str], masks: Path | None) -> None:
        self._masks = None if masks is None else Path(os.path.abspath(masks))
        self._excluded: dict[str, list[str]] = {pattern: [] for pattern in exclude}
        self._left_out: dict[str, list[str]] = {}
        self._auxiliary: dict[str, int] = {}

    def warnings(self) -> Iterator[str]:
        """What was left out, and what may have to be."""
        for pattern, names in self._excluded.items():
            if names:
                yield _sentence("left out by --exclude " + pattern, names)
            else:
                yield (
                    f"--exclude {pattern}: matches nothing; patterns are "
                    "relative to the folder of images"
                )
        for kind, names in self._left_out.items():
            yield _sentence(f"left out, {kind}", names)
        for folder, count in self._auxiliary.items():
            yield (
                f"{count} images lie in {shown(folder)}, named like a folder of masks "
                f"or depth maps; --exclude {os.path.basename(folder)} leaves them out"
            )

    def paths_of(self, pattern: str) -> list[Path]:
        """The images of one argument."""
        path = Path(pattern)
        if os.path.isdir(pattern):
            return self._below(path, (ANY_DEPTH, "*"), pattern)
        if path.suffix.lower() == ".txt":
            return self.kept(_listed(path))
        if os.path.exists(pattern) or glob.escape(pattern) == pattern:
            return self.kept([_image_or_nothing(path)])
        # the part that exists is literal, whatever characters it holds
        folder = next(filter(os.path.isdir, path.parents), Path())
        return self._below(folder, path.relative_to(folder).parts, pattern)

    def kept(self, paths: Sequence[Path]) -> list[Path]:
        """Those of paths that nothing excludes."""
        return [path for path in paths if not self._excludes(path, path)]

    def _excludes(self, path: Path, relative: Path) -> bool:
        for pattern, names in self._excluded.items():
            place = path.absolute() if os.path.isabs(pattern) else relative
            if is_excluded(place, pattern):
                names.append(str(relative))
                return True
        return False

    def _below(self, folder: Path, pattern: Sequence[str], named_as: str) -> list[Path]:
        """Images of a folder that fit a pattern."""
        hidden = any(part.startswith(".") for part in pattern)

        def leads_on(parts: Sequence[str]) -> bool:
            return ANY_DEPTH in pattern or path_matches(
                parts, pattern[: len(parts)], hidden=hidden
            )

        found: list[Path] = []
        for relative in self._files(folder, leads_on, hidden):
            if path_matches(relative.parts, pattern, hidden=hidden):
                path = folder / relative
                suffix = path.suffix.lower()
                kind = kind_of_unread(path)
                if suffix not in SUFFIXES and kind is None:
                    continue
                if self._excludes(path, relative):
                    continue
                if kind is None:
                    found.append(path)
                else:
                    self._leave_out(kind, relative)
        images = self._without_masks(folder, sorted(found))
        if not images:
            notes = "".join(f"; {text}" for text in self.warnings())
            raise DatasetError(
                f"{named_as}: found no image, expected files of type "
                f"{' '.join(sorted(SUFFIXES))}{notes}"
            )
        self._note_auxiliary(folder, images)
        return images

    def _files(
        self, folder: Path, leads_on: Callable[[Sequence[str]], bool], hidden: bool
    ) -> Iterator[Path]:
        """Files below a folder, relative to it; no folder twice."""
        root = Path(os.path.realpath(folder))
        waiting: list[tuple[Path, tuple[Path, ...]]] = [(Path(), (root,))]
        while waiting:
            relative, chain = waiting.pop()
            try:
                names = sorted(os.listdir(folder / relative))
            except OSError:
                self._leave_out("folders that cannot be read", relative)
                continue
            for name in names:
                path = folder / relative / name
                if name.startswith(".") and not hidden:
                    continue
                if path.is_dir():
                    real = Path(os.path.realpath(path))
                    if path.is_symlink() and _is_searched(real, chain):
                        kind = "links to folders that are searched under another name"
                        self._leave_out(kind, relative / name)
                    elif leads_on((relative / name).parts):
                        waiting.append((relative / name, (*chain, real)))
                elif path.is_file():
                    yield relative / name
                elif path.is_symlink() and path.suffix.lower() in SUFFIXES:
                    self._leave_out("links to no file", relative / name)

    def _without_masks(self, folder: Path, found: list[Path]) -> list[Path]:
        names = {path.name for path in found}
        place = Path(os.path.abspath(folder))
        masks = self._masks
        inside = masks is not None and masks != place and masks.is_relative_to(place)
        images = []
        for path in found:
            if path.name.endswith(PICTURE_SUFFIXES):
                kind = "pictures that kapture_r2d2_view drew"
            elif masks and inside and Path(os.path.abspath(path)).is_relative_to(masks):
                kind = "in the folder of --masks"
            elif path.suffix.lower() == MASK_SUFFIX and path.stem in names:
                kind = "masks by their names, those of images and .png"
            else:
                images.append(path)
                continue
            self._leave_out(kind, path.relative_to(folder))
        return images

    def _note_auxiliary(self, folder: Path, images: Sequence[Path]) -> None:
        for path in images:
            for parent in path.relative_to(folder).parents:
                if parent.name.lower() in AUXILIARY:
                    key = str(folder / parent)
                    self._auxiliary[key] = self._auxiliary.get(key, 0) + 1
                    break

    def _leave_out(self, kind: str, path: Path) -> None:
        self._left_out.setdefault(kind, []).append(str(path))


def _sentence(reason: str, names: Sequence[str]) -> str:
    return f"{len(names)} {reason}: {some_names(map(shown, sorted(names)))}"


def _image_or_nothing(path: Path) -> Path:
    """A path that may be missing if it is named like an image.

    Raises:
        DatasetError: it is missing, and probably was a folder.
    """
    named_so = path.suffix.lower() in SUFFIXES or kind_of_unread(path) is not None
    if not (named_so or os.path.lexists(path)):
        raise DatasetError(
            f"{path}: found no such file or folder, expected images; check the path"
        )
    return path


def _is_searched(real: Path, chain: Sequence[Path]) -> bool:
    """Whether a link leads into the folder searched, or to one that it lies in."""
    return real.is_relative_to(chain[0]) or any(
        folder.is_relative_to(real) for folder in chain
    )


def _listed(list_file: Path) -> list[Path]:
    lines = read_list_lines(list_file, "a list of images")
    paths = [
        _located(line, list_file.parent)
        for line in lines
        if line.strip() and not line.startswith("#")
    ]
    if not paths:
        raise DatasetError(f"{list_file}: found no path, expected one image per line")
    return paths


def _located(line: str, folder: Path) -> Path:
    """The file of a line; a camera may follow its name, as in Aachen's lists."""
    paths = [root / name for name in names_in(line) for root in (Path(), folder)]
    return next(filter(os.path.exists, paths), folder / line.strip())
