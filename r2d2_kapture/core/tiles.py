"""Windows into which a level is cut, that give the maps of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A window of a level: what goes through the network, and what is kept of it.

    Attributes:
        top, left, bottom, right: the window with its halo, in pixels of the level.
        inner_top, inner_left, inner_bottom, inner_right: the part that it answers for.
    """

    top: int
    left: int
    bottom: int
    right: int
    inner_top: int
    inner_left: int
    inner_bottom: int
    inner_right: int

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the inner part within the window."""
        return (
            slice(self.inner_top - self.top, self.inner_bottom - self.top),
            slice(self.inner_left - self.left, self.inner_right - self.left),
        )

    @property
    def inner_of_whole(self) -> tuple[slice, slice]:
        """Rows and columns of the inner part within the level."""
        return (
            slice(self.inner_top, self.inner_bottom),
            slice(self.inner_left, self.inner_right),
        )

    def answers_for(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether places of the window lie in the inner part: (N,) bool."""
        below = (rows >= self.inner_top - self.top) & (
            columns >= self.inner_left - self.left
        )
        above = (rows < self.inner_bottom - self.top) & (
            columns < self.inner_right - self.left
        )
        return below & above

    def in_cells(self, stride: int, height: int, width: int) -> Tile:
        """The same window on a map of (height, width) cells of ``stride`` pixels.

        Args:
            stride: that divides top and left.
            height, width: of the whole map, which may have fewer cells than fit.
        """
        ends = {"bottom": height, "right": width}
        values = {}
        for name, pixels in vars(self).items():
            limit = ends.get(name.removeprefix("inner_"))
            values[name] = (
                pixels // stride if limit is None else min(-(-pixels // stride), limit)
            )
        return Tile(**values)


def cut_tiles(
    height: int, width: int, *, tile_pixels: int, overlap: int, stride: int
) -> Iterator[Tile]:
    """Cut a level into windows no larger than the tile size.

    Args:
        height, width: of the level, in pixels.
        tile_pixels: of a window at most, halo included.
        overlap: pixels that a window reaches beyond the part it answers for, a multiple
            of ``stride``.
        stride: to which borders are aligned.
    """
    rows, columns = _tile_shape(height, width, tile_pixels, overlap, stride)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            yield Tile(
                top=max(top - overlap, 0),
                left=max(left - overlap, 0),
                bottom=min(bottom + overlap, height),
                right=min(right + overlap, width),
                inner_top=top,
                inner_left=left,
                inner_bottom=bottom,
                inner_right=right,
            )


def _tile_shape(
    height: int, width: int, tile_pixels: int, overlap: int, stride: int
) -> tuple[int, int]:
    """Inner rows and columns of the tiles that waste least within ``tile_pixels``."""
    if height * width <= tile_pixels:
        return height, width
    side = max(int(tile_pixels**0.5) - 2 * overlap, stride)
    if width <= side + 2 * overlap:
        columns = width
        rows = max(tile_pixels // width - 2 * overlap, stride)
    elif height <= side + 2 * overlap:
        rows = height
        columns = max(tile_pixels // height - 2 * overlap, stride)
    else:
        rows = columns = side
    return _even_parts(height, rows, stride), _even_parts(width, columns, stride)


def _even_parts(length: int, longest: int, stride: int) -> int:
    """Multiple of ``stride`` that cuts ``length`` into parts of about the same size,
    none above ``longest``."""
    if length <= longest:
        return length
    part = -(-length // -(-length // (longest // stride * stride)))
    return -(-part // stride) * stride
