"""Which frames of a video are worth keeping: sharp ones that show something new."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Item = TypeVar("Item")
Gray = npt.NDArray[np.uint8]
Outline = npt.NDArray[np.float32]

STEP = 4
OUTLINE = 320
LEAST_CONTRAST = 2.0


def sharpness(gray: Gray) -> float:
    """How much fine structure there is for each coarse one, whatever is shown.

    The mean square of differences between adjacent pixels, divided by that of pixels
    four apart, less 1/16, which is what is left of a ramp. Along the rows or the
    columns, whichever is less, since motion blurs along one direction.

    Args:
        gray: (H, W) brightness.

    Returns:
        0 or more; 0 for an image without structure.
    """
    along_rows = gray[::STEP].astype(np.float32)
    along_columns = gray[:, ::STEP].T.astype(np.float32)
    return min(_fine_for_coarse(along_rows), _fine_for_coarse(along_columns))


def _fine_for_coarse(lines: npt.NDArray[np.float32]) -> float:
    if lines.shape[1] <= STEP:
        return 0.0
    fine = float(np.mean((lines[:, 1:] - lines[:, :-1]) ** 2))
    coarse = float(np.mean((lines[:, STEP:] - lines[:, :-STEP]) ** 2))
    return max(fine / coarse - 1 / STEP**2, 0.0) if coarse > LEAST_CONTRAST else 0.0


def outline(gray: Gray) -> Outline:
    """A small image for ``motion``, 320 to 639 pixels on the longer side.

    Args:
        gray: (H, W) brightness; smaller ones stay as they are.
    """
    factor = max(max(gray.shape) // OUTLINE, 1)
    return np.asarray(Image.fromarray(gray).reduce(factor), np.float32)


def motion(before: Outline, after: Outline) -> float:
    """How far the parts of an image moved: the median of their displacements.

    Phase correlation of blocks (Kuglin and Hines, 1975), to whole pixels of an outline.

    Args:
        before, after: outlines of the same shape.

    Returns:
        Percent of the longer side; 0 where nothing is to be seen, and infinite if the
        shapes differ.
    """
    if before.shape != after.shape:
        return float("inf")
    lengths = []
    for rows, columns in _blocks(before.shape):
        pair = before[rows, columns], after[rows, columns]
        if min(float(block.std()) for block in pair) > LEAST_CONTRAST:
            lengths.append(_displacement(*pair))
    side: int = max(before.shape)
    return 100 * float(np.median(lengths or [0.0])) / side


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Squares of a quarter of the longer side, as many as there is room for."""
    side = max(min(max(shape) // 4, *shape), 1)
    for top in range(0, shape[0] - side + 1, side):
        for left in range(0, shape[1] - side + 1, side):
            yield slice(top, top + side), slice(left, left + side)


def _displacement(before: Outline, after: Outline) -> float:
    """Length in pixels of the shift at which two blocks correlate best."""
    side = len(before)
    window = np.outer(np.hanning(side), np.hanning(side))
    spectra = [np.fft.rfft2((b - b.mean()) * window) for b in (before, after)]
    cross = spectra[0] * np.conj(spectra[1])
    cross /= np.maximum(np.abs(cross), 1e-9)
    peak = int(np.argmax(np.fft.irfft2(cross, s=(side, side))))
    y, x = (min(place, side - place) for place in divmod(peak, side))
    return math.hypot(x, y)


def with_neighbours(
    items: Iterable[Item], reach: int
) -> Iterator[tuple[Item, list[Item]]]:
    """Each item with those up to ``reach`` before and after it, itself among them."""
    window: deque[Item] = deque()
    place = 0
    for item in items:
        window.append(item)
        if len(window) > place + reach:
            yield window[place], list(window)
            if place == reach:
                window.popleft()
            else:
                place += 1
    while place < len(window):
        yield window[place], list(window)
        if place == reach:
            window.popleft()
        else:
            place += 1
