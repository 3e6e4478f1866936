"""NumPy object arrays on disk, read without running code.

A pickle may call whatever it names, so the few names that arrays need stand for
functions of ours, and every other name is refused; nothing of it is imported. NumPy's
own functions would take the memory layout of an array from the file.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import UNREADABLE, FeatureFormatError

AnyArray = npt.NDArray[Any]

PLAIN_DTYPE = re.compile(r"[?biufSUO]\d*")


@dataclass
class ObjectArray:
    """An array inside a pickle: a list of objects, or a NumPy array of plain values."""

    content: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, content = state
        dtype = _of_type(dtype, _DType)
        if not dtype.is_object:
            order = "F" if fortran_order else "C"
            self.content = dtype.decode(content).reshape(shape, order=order)
        elif len(shape) != 1:
            raise ValueError(f"refused an array of shape {shape}")
        else:
            self.content = _of_type(content, list)


def read_object_array(path: Path) -> list[Any]:
    """Read a one-dimensional array of plain values, and of arrays of them.

    Returns:
        Its elements: numbers, strings, bytes, tuples, lists, dicts, ObjectArray.

    Raises:
        FeatureFormatError: absent, no object array, or one that names more than such
            arrays need.
    """
    try:
        return parse_object_array(path.read_bytes())
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise FeatureFormatError(
            f"{path}: not a NumPy array of objects that can be read safely: {reason}"
        ) from error


def parse_object_array(data: bytes) -> list[Any]:
    """The elements of the content of a .npy file, as ``read_object_array`` has them.

    Raises:
        UNREADABLE: not such a file, or an unsafe one.
    """
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("found no NumPy array")
    stream = BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("found another version of NumPy's format")
    _, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if not dtype.hasobject:
        raise ValueError(f"found an array of {dtype}, expected objects")
    _check_sizes(stream)
    array = _of_type(_Unpickler(stream).load(), ObjectArray)
    return list(_of_type(array.content, list))


def _check_sizes(stream: BytesIO) -> None:
    """Refuse instructions that reserve more memory than the file is long."""
    start = stream.tell()
    most = len(stream.getbuffer())
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name.endswith("PUT") and int(argument or 0) > most:
            raise ValueError(f"refused the place {argument} of a value")
    stream.seek(start)


class _Unpickler(pickle.Unpickler):
    """Has a stand-in for each name that arrays need, and refuses the others.

    None is a class, whose attributes a pickle could set.
    """

    def find_class(self, module: str, name: str) -> Any:
        stand_ins = {
            "numpy.core.multiarray._reconstruct": self._reconstruct,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy.ndarray": "ndarray",  # only ever an argument of _reconstruct
            "numpy.dtype": self._dtype,
            "_codecs.encode": self._encode,
        }
        # its name since NumPy 2
        named = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if named not in stand_ins:
            raise pickle.UnpicklingError(f"refused the name '{named}'")
        return stand_ins[named]

    def _reconstruct(self, *_: object) -> ObjectArray:
        return ObjectArray()

    def _dtype(self, code: str, *_: object) -> _DType:
        if not PLAIN_DTYPE.fullmatch(code):
            raise ValueError(f"refused the type '{code}'")
        return _DType(code)

    def _scalar(self, dtype: _DType, data: bytes) -> Any:
        return _of_type(dtype, _DType).decode(data).reshape(())[()].item()

    def _encode(self, text: str, encoding: str) -> bytes:
        """Bytes, as protocol 2 has them."""
        if encoding != "latin1":
            raise ValueError(f"refused the encoding {encoding}")
        return text.encode("latin1")


@dataclass
class _DType:
    code: str
    order: str = "="

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def __setstate__(self, state: Any) -> None:
        _, order, subarray, names, fields, *_ = state
        if (subarray, names, fields) != (None, None, None) or order not in "|<>=":
            raise ValueError("refused a type with parts")
        self.order = order

    def decode(self, data: bytes) -> AnyArray:
        if self.is_object:
            raise ValueError("found bytes for objects")
        dtype = np.dtype(self.order.replace("|", "=") + self.code)
        return np.frombuffer(_of_type(data, bytes), dtype)


def _of_type(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise ValueError(f"found {type(value).__name__}, expected {expected.__name__}")
    return value
