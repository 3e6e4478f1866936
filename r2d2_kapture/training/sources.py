"""Pairs of photographs with themselves, and pairs of pictures with their flow.

The named sources of the published recipe, W, A, S and F, lie below one folder as the
public R2D2 README lays them out:

    web_images/                 W  photographs: synthetic pairs
    aachen/images_upright/db/   A  photographs of Aachen: synthetic pairs
    aachen/style_transfer/      S  pictures <db image>.jpg.st_<query>.jpg: the db image
                                   in the colours of a query taken at night, aligned
    aachen/optical_flow/        F  pairs.txt and flow files

F in our own encoding: each line of pairs.txt holds three names separated by tabs, image
1 and image 2 relative to ``aachen/images_upright`` and the flow file relative to
``aachen/optical_flow``; a flow file is NumPy's .npz with one array ``aflow``, (H, W, 2)
float32, for each pixel of image 1 its absolute position (x, y) in image 2 in pixels,
(0, 0) at the centre of the top-left one, NaN where unknown. Flow files published
elsewhere may hold something else and must be converted first: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import UNREADABLE, DatasetError, ImageError
from r2d2_kapture.training.loading import PairSource, PictureLoader
from r2d2_kapture.training.lookups import DenseFlow, FloatArray
from r2d2_kapture.training.pairs import Flow, Points, RawPair, between_rasters
from r2d2_kapture.training.transforms import random_pair, strength_at
from r2d2_kapture.training.views import Picture, flow_of_pictures
from r2d2_kapture.types import Failure

WEB_IMAGES = PurePosixPath("web_images")
AACHEN_IMAGES = PurePosixPath("aachen/images_upright")
AACHEN_DB = AACHEN_IMAGES / "db"
STYLE_TRANSFER = PurePosixPath("aachen/style_transfer")
OPTICAL_FLOW = PurePosixPath("aachen/optical_flow")
FLOW_LIST = "pairs.txt"
STYLE_MARK = ".st_"

SOURCE_FOLDERS = {
    "W": WEB_IMAGES,
    "A": AACHEN_DB,
    "S": STYLE_TRANSFER,
    "F": OPTICAL_FLOW,
}
"""Where each named source lies below the data root."""


class PhotographSource(PairSource):
    """Synthetic pairs, one photograph each.

    A photograph that has disappeared or become unreadable since the start is replaced
    by the next one that is there, and counted.

    Args:
        name: of the source, as reported.
        paths: of photographs.
        config: of the pairs.
        load: decodes them.

    Raises:
        DatasetError: no photograph.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], config: PairConfig, load: PictureLoader
    ) -> None:
        if not paths:
            raise DatasetError(
                f"{name}: found no photograph to train on, expected readable images "
                f"of at least {config.crop_size} pixels a side"
            )
        super().__init__(name, len(paths), list(map(str, paths)), config, load)
        self._paths = tuple(paths)

    def pair(self, index: int, rng: np.random.Generator, difficulty: float) -> RawPair:
        """Make a pair of photograph ``index``, or of the next one that is there.

        Raises:
            DatasetError: none is left.
        """
        path, picture = self._picture(index)
        return random_pair(
            str(path),
            (picture, picture),
            None,
            self._config,
            strength_at(self._config, difficulty),
            rng,
        )

    def _picture(self, index: int) -> tuple[Path, Picture]:
        for step in range(len(self._paths)):
            number = (index + step) % len(self._paths)
            path = self._paths[number]
            try:
                picture = self._load(path)
            except ImageError:
                self._unusable[number] = True
                continue
            if min(picture.size) >= self._config.crop_size:
                return path, picture
            self._unusable[number] = True
        raise DatasetError(
            f"{self.name}: all {len(self._paths)} photographs have become unreadable "
            "since the start; put them back and resume"
        )


@dataclass(frozen=True, kw_only=True)
class PicturePair:
    """Two pictures of one thing.

    Attributes:
        name: of the pair, for messages.
        path1, path2: image files.
        flow_path: of the flow from 1 to 2; None where they are the same view, if maybe
            of other sizes.
    """

    name: str
    path1: Path
    path2: Path
    flow_path: Path | None = None


class PicturePairSource(PairSource):
    """Pairs of pictures with known flow: style transfer (S), optical flow (F).

    A pair whose files have become unreadable is left to the next draw, and counted.

    Args:
        name: of the source, as reported.
        pairs: of pictures.
        config: of the pairs.
        load: decodes the pictures.

    Raises:
        DatasetError: no pair.
    """

    def __init__(
        self,
        name: str,
        pairs: Sequence[PicturePair],
        config: PairConfig,
        load: PictureLoader,
    ) -> None:
        if not pairs:
            raise DatasetError(
                f"{name}: found no pair of pictures, expected one or more"
            )
        names = [pair.name for pair in pairs]
        super().__init__(name, len(pairs), names, config, load)
        self._pairs = tuple(pairs)

    def pair(
        self, index: int, rng: np.random.Generator, difficulty: float
    ) -> RawPair | None:
        """Make pair ``index``; of two aligned pictures either may come first.

        Returns:
            None where a file is unreadable.
        """
        pair = self._pairs[index]
        strength = strength_at(self._config, difficulty)
        try:
            pictures = self._load(pair.path1), self._load(pair.path2)
            if pair.flow_path is None:
                first, second = rng.permutation(2).tolist()
                pictures = pictures[first], pictures[second]
                flow = same_view(*pictures)
            else:
                aflow = read_flow(pair.flow_path, _stored_size(pictures[0]))
                flow = flow_of_pictures(DenseFlow(aflow), *pictures)
                strength = strength.softened()
        except (ImageError, DatasetError):
            self._unusable[index] = True
            return None
        return random_pair(pair.name, pictures, flow, self._config, strength, rng)


def same_view(picture1: Picture, picture2: Picture) -> Flow:
    """The flow of two rasters of the same view."""

    def flow(points: Points) -> Points:
        return between_rasters(points, picture1.size, picture2.size)

    return flow


def read_flow(path: Path, size: tuple[int, int]) -> FloatArray:
    """Read a flow file in the encoding of this module.

    Args:
        path: of the .npz file.
        size: (W, H) of image 1 as stored.

    Returns:
        (H, W, 2) float32.

    Raises:
        DatasetError: it cannot be read, or holds something else.
    """
    expected = (size[1], size[0], 2)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            aflow = arrays["aflow"]
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: not a flow file ({reason}), expected .npz with an array 'aflow'; "
            "convert flow of other encodings"
        ) from error
    if aflow.shape != expected or aflow.dtype != np.float32:
        raise DatasetError(
            f"{path}: found aflow {aflow.dtype} {aflow.shape}, expected float32 "
            f"{expected}, positions in image 2; convert flow of other encodings"
        )
    return np.asarray(aflow, dtype=np.float32)


def style_pairs(
    root: Path, stylised: Sequence[Path]
) -> tuple[list[PicturePair], tuple[Failure, ...]]:
    """Find the db image of each stylised picture by its name.

    Args:
        root: the data root.
        stylised: pictures of ``aachen/style_transfer``.

    Returns:
        The pairs, and the pictures left out with their reasons.
    """
    pairs: list[PicturePair] = []
    skipped: list[Failure] = []
    for path in stylised:
        image_name, mark, _ = path.name.partition(STYLE_MARK)
        original = root / AACHEN_DB / image_name
        if mark and original.is_file():
            pairs.append(PicturePair(name=path.name, path1=original, path2=path))
            continue
        expected = f"expected <db image>.jpg{STYLE_MARK}<query>.jpg"
        reason = f"{original} is not there" if mark else f"not named so, {expected}"
        skipped.append(Failure(name=str(path), reason=reason))
    return pairs, tuple(skipped)


def flow_pairs(
    root: Path, lines: Sequence[str]
) -> tuple[list[PicturePair], tuple[Failure, ...]]:
    """Find the pictures and flow files of ``pairs.txt``.

    Args:
        root: the data root.
        lines: of the list; blank ones and those starting with # are passed over.

    Returns:
        The pairs, and those left out because a file is not there.

    Raises:
        DatasetError: a line does not hold three safe names.
    """
    source = root / OPTICAL_FLOW / FLOW_LIST
    pairs: list[PicturePair] = []
    skipped: list[Failure] = []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        names = [field.strip() for field in line.split("\t")]
        if len(names) != 3 or any(map(_leaves_its_folder, names)):
            raise DatasetError(
                f"{source}: found {line[:80]!r}, expected image 1, image 2 and flow "
                "file, relative names separated by tabs"
            )
        pair = PicturePair(
            name=f"{names[0]} - {names[1]}",
            path1=root / AACHEN_IMAGES / names[0],
            path2=root / AACHEN_IMAGES / names[1],
            flow_path=root / OPTICAL_FLOW / names[2],
        )
        paths = (pair.path1, pair.path2, root / OPTICAL_FLOW / names[2])
        missing = [path for path in paths if not path.is_file()]
        if missing:
            reason = f"{missing[0]} is not there"
            skipped.append(Failure(name=pair.name, reason=reason))
        else:
            pairs.append(pair)
    return pairs, tuple(skipped)


def _leaves_its_folder(name: str) -> bool:
    path = PurePosixPath(name)
    return not name or path.is_absolute() or ".." in path.parts


def _stored_size(picture: Picture) -> tuple[int, int]:
    return picture.stored_size or picture.size
