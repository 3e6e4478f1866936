"""The plain arrays and texts of MATLAB 5 files, whatever else or broken is in them.

SciPy's reader trusts the types and sizes in a file and ends the process where they are
wrong, so third-party files are read here. A file is a header of 128 bytes and elements;
an element is a tag of its type and size, and data padded to 8 bytes. Source: MathWorks,
MAT-File Format, "Level 5 MAT-Files".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

HEADER_BYTES = 128
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
VERSION = 0x0100
VERSION_OF_HDF5 = 0x0200

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
NUMBERS = {
    INT8: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    INT32: "i4",
    UINT32: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
TEXTS = {
    INT8: ("latin1", "latin1"),
    2: ("latin1", "latin1"),
    4: ("utf-16-le", "utf-16-be"),
    16: ("utf-8", "utf-8"),
    17: ("utf-16-le", "utf-16-be"),
    18: ("utf-32-le", "utf-32-be"),
}
CHAR_CLASS = 4
NUMBER_CLASSES = range(6, 16)
COMPLEX_FLAG = 0x0800

MAX_DECOMPRESSED_BYTES = 1 << 30
"""Bytes of one array above which compressed data are taken for an attack."""


def plain_arrays(data: bytes) -> dict[str, AnyArray]:
    """Read the real, full arrays of numbers and the one-line texts of a file.

    Cells, structures, objects, sparse and complex arrays are passed over.

    Args:
        data: the whole file.

    Returns:
        By name: arrays in the type and byte order that they are stored in, read-only;
        texts as arrays of no axis.

    Raises:
        ValueError: another format, or broken.
        zlib.error: broken compressed data.
    """
    order = _byte_order(data)
    arrays: dict[str, AnyArray] = {}
    for kind, body in _elements(memoryview(data)[HEADER_BYTES:], order):
        if kind == COMPRESSED:
            kind, body = next(_elements(_decompressed(body), order), (0, body))
        if kind != MATRIX:
            raise ValueError(f"found an element of type {kind}, expected an array")
        arrays |= _array(body, order)
    return arrays


def _byte_order(data: bytes) -> str:
    order = BYTE_ORDERS.get(data[HEADER_BYTES - 2 : HEADER_BYTES])
    if order is None:
        raise ValueError("found no header of a MATLAB 5 file")
    (version,) = struct.unpack_from(f"{order}H", data, HEADER_BYTES - 4)
    if version == VERSION_OF_HDF5:
        raise ValueError("found a MATLAB 7.3 file; save it with -v7")
    if version != VERSION:
        raise ValueError(f"found version {version:#x} of MATLAB files")
    return order


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element."""
    while data:
        if len(data) < 8:
            raise ValueError("found a truncated element")
        kind, size = struct.unpack_from(f"{order}II", data)
        start, room = 8, len(data) - 8
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size, start, room = kind & 0xFFFF, kind >> 16, 4, 4
        if size > room:
            raise ValueError(f"found {room} bytes of an element of {size}")
        yield kind, data[start : start + size]
        end = start + size
        data = data[end if kind == COMPRESSED else end + -end % 8 :]


def _decompressed(data: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    content = stream.decompress(data, MAX_DECOMPRESSED_BYTES)
    if not stream.eof:
        raise ValueError("found truncated compressed data, or data above 1 GiB")
    return memoryview(content)


def _array(body: memoryview, order: str) -> dict[str, AnyArray]:
    """An array by its name; none where it is of another class."""
    elements = _elements(body, order)
    flags, _ = _numbers(next(elements, (0, body)), order, UINT32, count=2)
    array_class = int(flags) & 0xFF
    plain = array_class == CHAR_CLASS or array_class in NUMBER_CLASSES
    if not plain or int(flags) & COMPLEX_FLAG:
        return {}
    parts = list(islice(elements, 3))
    if len(parts) < 3:
        raise ValueError("found an array without its data")
    shape = tuple(_numbers(parts[0], order, INT32).tolist())
    name = bytes(parts[1][1]).decode("latin1")
    if array_class == CHAR_CLASS:
        # letters of several rows lie column by column
        return {name: _text(parts[2], order)} if shape[:1] <= (1,) else {}
    values = _numbers(parts[2], order)
    if min(shape, default=-1) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"{name}: found {values.size} values, expected {shape}")
    return {name: values.reshape(shape, order="F")}


def _numbers(
    element: tuple[int, memoryview],
    order: str,
    expected: int | None = None,
    count: int | None = None,
) -> AnyArray:
    """(N,) numbers of an element, of a type and of how many are expected."""
    kind, data = element
    if kind not in NUMBERS or expected not in (None, kind):
        raise ValueError(f"found an element of type {kind}, expected numbers")
    values = np.frombuffer(data, np.dtype(order + NUMBERS[kind]))
    if count not in (None, values.size):
        raise ValueError(f"found {values.size} numbers, expected {count}")
    return values


def _text(element: tuple[int, memoryview], order: str) -> AnyArray:
    kind, data = element
    if kind not in TEXTS:
        raise ValueError(f"found an element of type {kind}, expected text")
    little, big = TEXTS[kind]
    return np.array(bytes(data).decode(little if order == "<" else big))
