"""HDF5 files of the features of many images, in the layout of hloc.

One group per image, named as the image: ``seq1/a b.jpg`` is a group inside ``seq1``.

    keypoints    (N, 2) float32   x, y in pixels of the stored image, (0, 0) at the
                                  centre of its top-left pixel; hloc adds the half
                                  pixel itself when it imports them into COLMAP
    scores       (N,) float32     higher is better; other tools may leave them out
    descriptors  (D, N) float32   unit L2 norm, or float16 as hloc's ``as_half``
    image_size   (2,) int64       W, H of the stored image in pixels
    scales       (N,) float32     patch side in pixels; most of hloc's files lack it

The root attribute ``settings`` holds the JSON of how the features were made.
Source: https://github.com/cvg/Hierarchical-Localization, hloc/extract_features.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.fields import (
    WAY_OUT,
    checked_image_size,
    features_from_rows,
)
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.types import LocalFeatures, PairMatches, some_names

ROOM_TO_CLOSE = 1 << 20
"""Bytes kept for what HDF5 writes last."""

ROOM_PER_IMAGE = 1 << 14
"""Bytes of one image's groups and headers, several times what HDF5 takes."""


def write_h5(
    path: Path,
    items: Iterable[tuple[str, LocalFeatures]],
    settings: str = "",
    uncertainty: float | None = None,
) -> None:
    """Write the features of all images; the file appears when it is complete.

    Args:
        path: the file to make or replace.
        items: image names and features, taken one at a time.
        settings: JSON of how the features were made.
        uncertainty: standard deviation of keypoints in pixels, by which hloc scales the
            thresholds of verification; None leaves it out.

    Raises:
        FeatureFormatError: a name that HDF5 cannot store with the others.
        OutputError: the file system refused.
    """
    with creating_h5(path) as (file, reserve):
        reserve(len(settings.encode()))
        # of fixed length: HDF5 never ends reading others from a damaged heap
        file.attrs["settings"] = np.bytes_(settings.encode() or b" ")
        images: set[str] = set()
        folders: set[str] = set()
        for name, features in items:
            _reserve_name(path, name, images, folders)
            values = 4 * len(features) + features.descriptors.size
            reserve(4 * values + ROOM_PER_IMAGE)
            group = file.create_group(name)
            group["keypoints"] = features.keypoints
            group["scores"] = features.scores
            half = features.descriptors.dtype == np.float16
            group["descriptors"] = features.unit_descriptors.T.astype(
                np.float16 if half else np.float32
            )
            group["image_size"] = np.array(features.image_size, dtype=np.int64)
            group["scales"] = features.scales
            if uncertainty is not None:
                group["keypoints"].attrs["uncertainty"] = uncertainty


@contextmanager
def creating_h5(path: Path) -> Iterator[tuple[h5py.File, Callable[[int], None]]]:
    """Give an HDF5 file to fill, which appears when the block ends, and room in it.

    HDF5 crashes its process where a write fails: the second value takes a number of
    bytes of the disk before they are written.

    Raises:
        OutputError: the file system refused.
    """
    with (
        atomic_path(path) as temporary,
        h5py.File(temporary, "w") as file,
        temporary.open("r+b") as space,
    ):
        reserved = _reserve(space, 0, ROOM_TO_CLOSE)

        def reserve(size: int) -> None:
            nonlocal reserved
            reserved = _reserve(space, reserved, size)

        yield file, reserve
        file.flush()
        space.truncate(file.id.get_filesize())  # give back what was not used


def read_h5(
    path: Path,
    name: str,
    image_size: tuple[int, int] | None = None,
    *,
    as_stored: bool = False,
) -> LocalFeatures:
    """Read the features of one image, from our files or hloc's, best score first.

    The rows of hloc's files may come back in another order than in the file. Scales
    that are absent are those of R2D2 at full size (PATCH_DIAMETER).

    Args:
        path: of the file.
        name: of the image.
        image_size: (W, H) in pixels, for files that hold none.
        as_stored: keep the order of the file, which matches count by, without scores.

    Raises:
        FeatureFormatError: absent, truncated, of another format, or without the image.
    """
    with open_h5(path) as file:
        try:
            _require_image(file, name)
            group = file[name]
            keypoints, descriptors = group["keypoints"][()], group["descriptors"][()]
            if descriptors.ndim != 2 or descriptors.shape[1] != len(keypoints):
                raise FeatureFormatError(
                    f"descriptors: found {descriptors.shape}, expected as hloc writes "
                    f"them (D, {len(keypoints)}), a column for each of the keypoints; "
                    "transpose them, or make the file again"
                )
            return features_from_rows(
                keypoints.astype(np.float32),
                descriptors.T,
                group["scores"][()] if "scores" in group and not as_stored else None,
                (
                    image_size
                    if image_size is not None and "image_size" not in group
                    else checked_image_size(group["image_size"][()])
                ),
                group["scales"][()] if "scales" in group else None,
            )
        except KeyError as error:
            raise FeatureFormatError(
                f"{path}: image '{name}': {error.args[0]}; expected its keypoints, "
                "descriptors and image_size"
            ) from error
        except (
            OSError,
            RuntimeError,  # of HDF5, in damaged files
            ValueError,
            TypeError,
            AttributeError,
            FeatureFormatError,
        ) as error:
            raise FeatureFormatError(f"{path}: image '{name}': {error}") from error


def read_h5_matches(
    path: Path, name1: str, name2: str, counts: tuple[int, int] | None = None
) -> PairMatches:
    """Read the matches of a pair from a file in hloc's layout, in either order.

    One group a pair, ``A/B`` with "-" for the "/" in names (``A_B`` in older files):
    ``matches0`` (N,) gives the row in B of each row of A, -1 where there is none, and
    ``matching_scores0`` (N,) their scores.
    Source: https://github.com/cvg/Hierarchical-Localization, hloc/utils/io.py.

    Args:
        path: of the file.
        name1, name2: of the images.
        counts: their numbers of keypoints; None where they are not known.

    Raises:
        FeatureFormatError: absent, truncated, of another format, without the pair, or
            of other keypoints than ``counts``.
    """
    count1, count2 = counts or (None, None)
    plain1, plain2 = name1.replace("/", "-"), name2.replace("/", "-")
    with open_h5(path) as file:
        try:
            for separator in "/_":
                if (key := f"{plain1}{separator}{plain2}") in file:
                    return _matches(file[key], count1)
                if (key := f"{plain2}{separator}{plain1}") in file:
                    return _matches(file[key], count2).swapped()
            there = sorted(_pairs_of(file, plain1))
        except (OSError, RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise FeatureFormatError(
                f"{path}: '{name1}' and '{name2}': cannot read matches0: {error}; "
                f"{WAY_OUT}"
            ) from error
    found = f"holds {some_names(there)}" if there else f"has no pair of '{name1}'"
    raise FeatureFormatError(
        f"{path}: found no matches of '{name1}' and '{name2}'; the file {found}"
    )


def _matches(group: h5py.Group, count: int | None) -> PairMatches:
    second = np.asarray(group["matches0"][()]).ravel()
    if count not in (None, len(second)):
        raise ValueError(
            f"found {len(second)} rows, expected one for each of {count} keypoints"
        )
    (first,) = np.nonzero(second >= 0)
    scores = np.ones(len(second), np.float32)
    if "matching_scores0" in group:
        scores = np.asarray(group["matching_scores0"][()], np.float32).ravel()
    return PairMatches(
        indices=np.column_stack([first, second[first]]).astype(np.int64),
        scores=scores[first],
    )


def _pairs_of(file: h5py.File, plain: str) -> Iterable[str]:
    """Names of the groups of the pairs of an image."""
    for key in file:
        if plain in key and "matches0" in file[key]:
            yield key
        elif key == plain:
            yield from (f"{key}/{other}" for other in file[key])
        elif plain in file[key]:
            yield f"{key}/{plain}"


def h5_settings(path: Path) -> str:
    """How the features of a file were made; empty in files of other tools.

    Raises:
        FeatureFormatError: absent, truncated or of another format.
    """
    with open_h5(path) as file:
        try:
            value = file.attrs.get("settings", "")
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise FeatureFormatError(
                f"{path}: cannot read the settings: {error}; {WAY_OUT}"
            ) from error
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip()


def h5_names(path: Path) -> list[str]:
    """List the images of a file, sorted.

    Raises:
        FeatureFormatError: absent, truncated or of another format.
    """
    names: list[str] = []

    def add_image(name: str, entry: h5py.Group | h5py.Dataset) -> None:
        if _is_image(entry):
            names.append(name)

    with open_h5(path) as file:
        try:
            file.visititems(add_image)
        except (OSError, RuntimeError, KeyError) as error:
            raise FeatureFormatError(
                f"{path}: cannot read as an HDF5 file: {error}; {WAY_OUT}"
            ) from error
    return sorted(names)


def _require_image(file: h5py.File, name: str) -> None:
    if name in file:
        return
    there = file.visititems(lambda other, item: other if _is_image(item) else None)
    found = "no images" if there is None else f"others, such as '{there}'"
    raise FeatureFormatError(
        f"not in the file, which contains {found}; expected names relative to the "
        "folder of the images"
    )


def _is_image(entry: h5py.Group | h5py.Dataset) -> bool:
    if not isinstance(entry, h5py.Group) or "keypoints" not in entry:
        return False
    return isinstance(entry["keypoints"], h5py.Dataset)


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open a file to read.

    Raises:
        FeatureFormatError: absent, truncated or of another format, also in the block.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise FeatureFormatError(
            f"{path}: cannot read as an HDF5 file: {error}; {WAY_OUT}"
        ) from error


def _reserve(space: IO[bytes], start: int, size: int) -> int:
    """Take disk space before HDF5 needs it: a write that fails crashes its process.

    Returns:
        Where the reserved space ends.
    """
    if size and hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        os.posix_fallocate(space.fileno(), start, size)
    return start + size


def _reserve_name(path: Path, name: str, images: set[str], folders: set[str]) -> None:
    """Refuse a name that would mix the groups of two images."""
    parts = name.split("/")
    parents = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    if "" in parts or "." in parts:
        raise FeatureFormatError(
            f"{path}: image '{name}': expected a relative name without empty or '.' "
            "parts; rename the image"
        )
    if name in images:
        raise FeatureFormatError(
            f"{path}: image '{name}' occurs twice, expected each name once"
        )
    clash = {name} & folders or parents & images
    if clash:
        raise FeatureFormatError(
            f"{path}: '{min(clash)}' is both an image and a folder of another "
            f"(image '{name}'), which HDF5 cannot hold; rename one of them"
        )
    images.add(name)
    folders |= parents
