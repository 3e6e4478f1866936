"""Matching accuracy on image sequences related by known homographies.

The protocol of D2-Net (Dusmanu et al., CVPR 2019) on HPatches (Balntas et al., CVPR
2017): mutual nearest neighbours between image 1 and each other image of a sequence; a
match is correct within a threshold in pixels of the point that the homography predicts;
the mean matching accuracy (MMA) is the share of correct matches, averaged over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
Kind = Literal["illumination", "viewpoint"]

KINDS: dict[str, Kind] = {"i_": "illumination", "v_": "viewpoint"}
IMAGE_SUFFIXES = frozenset({".ppm", ".png", ".jpg"})
THRESHOLDS = tuple(float(pixels) for pixels in range(1, 11))
BLOCK_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class HomographySequence:
    """Images of one plane, or from one place, with their true homographies.

    Attributes:
        name: name of the folder, ``i_...`` or ``v_...``.
        images: paths of image 1 to image n.
        homographies: n - 1 matrices, (3, 3) float64; the one at index i maps pixels of
            image 1 to image i + 2, (0, 0) at the centre of the top-left pixel.

    Raises:
        DatasetError: the name starts with neither prefix, or the counts disagree.
    """

    name: str
    images: tuple[Path, ...]
    homographies: tuple[Array, ...]

    def __post_init__(self) -> None:
        if self.name[:2] not in KINDS:
            raise DatasetError(
                f"{self.name}: expected a sequence named i_ (illumination) or "
                "v_ (viewpoint)"
            )
        if not 0 < len(self.homographies) == len(self.images) - 1:
            raise DatasetError(
                f"{self.name}: found {len(self.images)} images and "
                f"{len(self.homographies)} homographies, expected n and n - 1, n >= 2"
            )

    @property
    def kind(self) -> Kind:
        """What changes between the images."""
        return KINDS[self.name[:2]]


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Matching accuracy between image 1 of a sequence and another.

    Attributes:
        sequence: name of the sequence.
        image: number of the second image, 2 to n.
        features: number of features in image 1 and in the second image.
        matches: number of mutual nearest neighbours.
        mma: (T,) float64, share of correct matches at each threshold.
    """

    sequence: str
    image: int
    features: tuple[int, int]
    matches: int
    mma: Array


def read_sequence(folder: Path) -> HomographySequence:
    """Read a folder of images ``1.png`` to ``n.png`` and files ``H_1_2`` to ``H_1_n``.

    Images may be .ppm (as published), .png or .jpg; other files are ignored.

    Raises:
        DatasetError: a file is missing or twice there, or a homography is unreadable.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of a homography sequence")
    images = _numbered_images(folder)
    homographies = _numbered_homographies(folder)
    count = max([2, *images, *homographies])
    missing = [f"image {k}" for k in range(1, count + 1) if k not in images]
    missing += [f"H_1_{k}" for k in range(2, count + 1) if k not in homographies]
    if missing:
        raise DatasetError(f"{folder}: missing {', '.join(missing)}")
    return HomographySequence(
        name=folder.resolve().name,
        images=tuple(images[k] for k in range(1, count + 1)),
        homographies=tuple(
            _read_homography(homographies[k]) for k in range(2, count + 1)
        ),
    )


def read_sequences(root: Path) -> list[HomographySequence]:
    """Read every ``i_...`` and ``v_...`` folder directly under ``root``, by name.

    Raises:
        DatasetError: there is none, or one of them is incomplete.
    """
    folders = [
        path for path in root.glob("*") if path.is_dir() and path.name[:2] in KINDS
    ]
    if not folders:
        raise DatasetError(f"{root}: found no folder named i_... or v_...")
    return [read_sequence(folder) for folder in sorted(folders)]


def mutual_nearest_neighbours(
    descriptors1: npt.NDArray[np.float32], descriptors2: npt.NDArray[np.float32]
) -> IndexArray:
    """Match descriptors that are each other's nearest neighbour by dot product.

    Args:
        descriptors1: (N, D) float32, unit L2 norm.
        descriptors2: (M, D) float32, unit L2 norm.

    Returns:
        (K, 2) int64, rows of the first and of the second, ordered by the first; equal
        similarities go to the lower row.

    Raises:
        FeatureFormatError: the dimensions of the descriptors differ.
    """
    if descriptors1.shape[1:] != descriptors2.shape[1:]:
        raise FeatureFormatError(
            f"descriptors: found {descriptors1.shape} and {descriptors2.shape}, "
            "expected (N, D) and (M, D)"
        )
    if len(descriptors1) == 0 or len(descriptors2) == 0:
        return np.empty((0, 2), dtype=np.int64)
    columns = np.arange(len(descriptors2))
    nearest_in_2 = np.empty(len(descriptors1), dtype=np.int64)
    nearest_in_1 = np.zeros(len(descriptors2), dtype=np.int64)
    best = np.full(len(descriptors2), -np.inf, dtype=np.float32)
    # blocks of rows bound the memory: two images of 50 k features would take 10 GB
    for start in range(0, len(descriptors1), BLOCK_ROWS):
        similarity = descriptors1[start : start + BLOCK_ROWS] @ descriptors2.T
        nearest_in_2[start : start + BLOCK_ROWS] = similarity.argmax(axis=1)
        row = similarity.argmax(axis=0)
        block_best = similarity[row, columns]
        better = block_best > best
        best[better] = block_best[better]
        nearest_in_1[better] = row[better] + start
    rows = np.arange(len(descriptors1))
    mutual = nearest_in_1[nearest_in_2] == rows
    return np.column_stack([rows[mutual], nearest_in_2[mutual]])


def matching_errors(
    features1: LocalFeatures,
    features2: LocalFeatures,
    matches: IndexArray,
    H_2_from_1: Array,
) -> Array:
    """Distance in image 2 between the projected keypoint 1 and keypoint 2 of a match.

    Args:
        features1: N features of image 1, (0, 0) at the centre of the top-left pixel.
        features2: M features of image 2, same origin.
        matches: (K, 2) int64, rows of features1 and of features2.
        H_2_from_1: (3, 3) maps pixels of image 1 to image 2, used as given.

    Returns:
        (K,) float64 in pixels; infinite where the point projects to infinity.
    """
    xy1 = features1.keypoints[matches[:, 0]].astype(np.float64)
    xy2 = features2.keypoints[matches[:, 1]].astype(np.float64)
    projected = np.column_stack([xy1, np.ones(len(xy1))]) @ H_2_from_1.T
    at_infinity = projected[:, 2] == 0
    projected[at_infinity, 2] = 1.0
    errors = np.linalg.norm(projected[:, :2] / projected[:, 2:] - xy2, axis=1)
    return np.where(at_infinity, np.inf, errors)


def mma(errors: Array, thresholds: Sequence[float]) -> Array:
    """Share of the matches whose error is at most each threshold.

    Args:
        errors: (K,) in pixels.
        thresholds: T thresholds in pixels.

    Returns:
        (T,) float64 in 0 to 1; zeros where there are no matches, as in D2-Net.
    """
    correct = errors[:, None] <= np.asarray(thresholds, dtype=np.float64)
    return np.asarray(correct.sum(axis=0) / max(len(errors), 1), dtype=np.float64)


def mean_matching_accuracy(per_pair: Sequence[Array]) -> Array:
    """Mean of the (T,) accuracies over pairs, each pair with the same weight.

    Raises:
        DatasetError: there are no pairs.
    """
    if not per_pair:
        raise DatasetError("mean matching accuracy: found no image pair")
    return np.asarray(np.mean(np.stack(per_pair), axis=0), dtype=np.float64)


def evaluate_sequence(
    sequence: HomographySequence,
    features: Callable[[Path], LocalFeatures],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[PairResult]:
    """Match image 1 with every other image and measure the accuracy.

    Args:
        sequence: images with their homographies.
        features: extracts or loads the features of an image; called once per image.
        thresholds: T thresholds in pixels.

    Returns:
        One result per pair, images 2 to n in order.
    """
    features1 = features(sequence.images[0])
    results = []
    for number, (image, homography) in enumerate(
        zip(sequence.images[1:], sequence.homographies, strict=True), start=2
    ):
        features2 = features(image)
        matches = mutual_nearest_neighbours(
            features1.descriptors, features2.descriptors
        )
        errors = matching_errors(features1, features2, matches, homography)
        results.append(
            PairResult(
                sequence=sequence.name,
                image=number,
                features=(len(features1), len(features2)),
                matches=len(matches),
                mma=mma(errors, thresholds),
            )
        )
    return results


def _numbered_images(folder: Path) -> dict[int, Path]:
    images: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.isdecimal():
            other = images.setdefault(int(path.stem), path)
            if other != path:
                raise DatasetError(f"{folder}: found both {other.name} and {path.name}")
    return images


def _numbered_homographies(folder: Path) -> dict[int, Path]:
    return {
        int(path.name.removeprefix("H_1_")): path
        for path in folder.glob("H_1_*")
        if path.name.removeprefix("H_1_").isdecimal()
    }


def _read_homography(path: Path) -> Array:
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a homography: {error}") from error
    if values.size != 9 or not np.isfinite(values).all():
        raise DatasetError(
            f"{path}: found {values.size} values, expected the 9 finite values of a "
            "3x3 homography"
        )
    return values.reshape(3, 3)
