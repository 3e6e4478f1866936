"""Image sequences of one plane, or from one place, with their true homographies.

The layout of HPatches (Balntas et al., CVPR 2017): a folder of images ``1.ppm`` to
``6.ppm`` and text files ``H_1_2`` to ``H_1_6``, named ``i_...`` where the illumination
changes and ``v_...`` where the viewpoint does. Its homographies map pixels to pixels,
(0, 0) at the centre of the top-left pixel, the origin of this package.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.images.formats import SUFFIXES

Array = npt.NDArray[np.float64]
Kind = Literal["illumination", "viewpoint", "other"]

KINDS: dict[str, Kind] = {"i_": "illumination", "v_": "viewpoint"}
MAX_NAMED = 8
"""Missing files that an error names."""

LARGE_SEQUENCES = frozenset(
    "i_contruction i_crownnight i_dc i_pencils i_whitebuilding "
    "v_artisans v_astronautis v_talent".split()
)
"""The eight of HPatches that D2-Net (Dusmanu et al., CVPR 2019) leaves out: their
images were too large for some of the methods that it compares."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HomographySequence:
    """Images of one plane, or from one place, with their true homographies.

    Attributes:
        name: of the folder, relative to where sequences were looked for.
        images: paths of image 1 to image n.
        homographies: n - 1 matrices, (3, 3) float64; the one at index i maps pixels of
            image 1 to image i + 2, (0, 0) at the centre of the top-left pixel.

    Raises:
        DatasetError: the counts disagree.
    """

    name: str
    images: tuple[Path, ...]
    homographies: tuple[Array, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.homographies) == len(self.images) - 1:
            raise DatasetError(
                f"{self.name}: found {len(self.images)} images and "
                f"{len(self.homographies)} homographies, expected n and n - 1, n >= 2"
            )

    @property
    def kind(self) -> Kind:
        """What changes between the images; other names count in the overall mean."""
        return KINDS.get(self.name.rpartition("/")[2][:2], "other")


def find_sequences(
    root: Path, leave_out: Collection[str] = LARGE_SEQUENCES
) -> dict[str, Path]:
    """Find the folders of sequences at or below ``root``, at any depth.

    A sequence is a folder named ``i_...`` or ``v_...``, or one that holds a file
    ``H_1_2``. A root of such a name is one only if it holds numbered images too, else
    it holds the sequences.

    Args:
        root: where to look.
        leave_out: names of folders to pass over.

    Returns:
        Folders by their path relative to ``root``, sorted; a root that is a sequence
        itself goes by its own name.

    Raises:
        DatasetError: there is no such folder, or no sequence.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder, expected one that holds sequences")
    root_name = root.resolve().name
    if _holds_homography(root) or (_is_named(root_name) and _numbered_images(root)):
        return {root_name: root}
    found = []
    for folder, subfolders, _ in os.walk(root):
        paths = [Path(folder) / name for name in subfolders]
        found += [path for path in paths if _is_sequence(path)]
        subfolders[:] = [path.name for path in paths if not _is_sequence(path)]
    kept = [path for path in found if path.name not in leave_out]
    if not kept:
        left_out = f"; left out {len(found)}" if found else ""
        raise DatasetError(
            f"{root}: found no sequence, expected folders named i_... or v_..., or "
            f"that hold H_1_2{left_out}"
        )
    return {path.relative_to(root).as_posix(): path for path in sorted(kept)}


def read_sequence(folder: Path, name: str | None = None) -> HomographySequence:
    """Read a folder of images ``1.png`` to ``n.png`` and files ``H_1_2`` to ``H_1_n``.

    Images may be .ppm (as published), .png or .jpg; other files are ignored.

    Args:
        folder: of the sequence.
        name: to give it; the folder's by default.

    Raises:
        DatasetError: a file is missing or twice there, or a homography is unreadable.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of a homography sequence")
    images = _numbered_images(folder)
    homographies = _numbered_homographies(folder)
    count = max([2, *images, *homographies])
    missing = 2 * count - 1 - len(images) - len(homographies)
    if missing:
        raise DatasetError(
            f"{folder}: missing {_some_missing(images, homographies, count, missing)}"
        )
    return HomographySequence(
        name=name or folder.resolve().name,
        images=tuple(images[k] for k in range(1, count + 1)),
        homographies=tuple(
            _read_homography(homographies[k]) for k in range(2, count + 1)
        ),
    )


def read_sequences(
    root: Path, leave_out: Collection[str] = LARGE_SEQUENCES
) -> list[HomographySequence]:
    """Read every sequence that find_sequences finds.

    Raises:
        DatasetError: there is none, or one of them is incomplete.
    """
    folders = find_sequences(root, leave_out)
    return [read_sequence(folder, name) for name, folder in folders.items()]


def _is_sequence(folder: Path) -> bool:
    return folder.is_dir() and (_is_named(folder.name) or _holds_homography(folder))


def _is_named(name: str) -> bool:
    return name[:2] in KINDS


def _holds_homography(folder: Path) -> bool:
    return (folder / "H_1_2").is_file()


def _numbered_images(folder: Path) -> dict[int, Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
    return _numbered({path: path.stem for path in files}, first=1)


def _numbered_homographies(folder: Path) -> dict[int, Path]:
    files = folder.glob("H_1_*")
    return _numbered({path: path.name.removeprefix("H_1_") for path in files}, first=2)


def _numbered(texts: Mapping[Path, str], first: int) -> dict[int, Path]:
    """Files by their numbers from ``first`` on; those without a number are ignored."""
    numbered: dict[int, Path] = {}
    for path, text in sorted(texts.items()):
        if text.isdecimal() and int(text) >= first:
            other = numbered.setdefault(int(text), path)
            if other != path:
                raise DatasetError(
                    f"{path.parent}: found both {other.name} and {path.name}"
                )
    return numbered


def _some_missing(
    images: Collection[int], homographies: Collection[int], count: int, missing: int
) -> str:
    """The first few of what is missing: a stray 200000.png makes it long."""
    names = itertools.chain(
        (f"image {k}" for k in range(1, count + 1) if k not in images),
        (f"H_1_{k}" for k in range(2, count + 1) if k not in homographies),
    )
    shown = list(itertools.islice(names, MAX_NAMED))
    more = f" and {missing - len(shown)} more" if missing > len(shown) else ""
    return ", ".join(shown) + more


def _read_homography(path: Path) -> Array:
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a homography: {error}") from error
    if values.size != 9:
        raise DatasetError(
            f"{path}: found {values.size} values, expected the 9 of a 3x3 homography"
        )
    if not np.isfinite(values).all():
        raise DatasetError(
            f"{path}: found {' '.join(map(str, values))}, expected finite values"
        )
    homography = values.reshape(3, 3)
    if np.linalg.matrix_rank(homography) < 3:
        raise DatasetError(f"{path}: found a singular matrix, expected a homography")
    return homography
